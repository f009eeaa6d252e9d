"""What quantization did to a checkpoint."""
import mmdet_bpu.registration  # noqa: F401,I001  (registers our modules)

import csv
import io
import json
from pathlib import Path
from typing import Any, Dict, Optional, Union

from mmengine.config import Config
from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.analysis.comparison_page import render
from mmdet_bpu.analysis.quant_comparison import worst
from mmdet_bpu.apis.models import (deployable_detector, load_quantized, settings_of,
                                   vendor_module)
from mmdet_bpu.backends.choice import require_vendor
from mmdet_bpu.choices import KERNELS
from mmdet_bpu.engine.camera_input import byte_inputs
from mmdet_bpu.engine.loading import load_strictly
from mmdet_bpu.engine.quant_analysis import QuantAnalysis, analyze, drawn
from mmdet_bpu.engine.stage_names import FLOAT, QUANTIZED_STAGES, VENDOR
from mmdet_bpu.engine.val_images import val_loader
from mmdet_bpu.engine.weights import check_stage, read_checkpoint, stage_of
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.class_names import class_names
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.lowering.artifact_formats import load_artifact
from mmdet_bpu.lowering.export import lower_networks
from mmdet_bpu.output_folder import require_folder, staged_folder
from mmdet_bpu.quantization import prepare, quantization_of, quantized_graphs

COMPARISON = 'compare'
"""Stem of the files that a comparison writes: ``.html``, ``.json``, ``.csv``."""
HISTOGRAMS, PICTURES = 24, 5  # of the worst tensors and images, in the page

PathLike = Union[str, Path]


def compare(cfg: Config, checkpoint: PathLike, out_dir: PathLike,
            float_checkpoint: Optional[PathLike] = None, against: Optional[PathLike] = None,
            images: int = 32, int_images: int = 2, score_thr: float = 0.3,
            kernels: str = KERNELS[0]) -> Dict[str, Any]:
    """Float against quantized, and quantized against integers, tensor by tensor.

    Args:
        cfg (Config): With a stage; its validation data are used. Completed in place.
        checkpoint (str | Path): Of a calibration or of QAT.
        out_dir (str | Path): Folder for ``compare.html``, ``compare.json`` and ``compare.csv``.
        float_checkpoint (str | Path, optional): Float weights to compare with. Defaults to the
            checkpoint's own, without quantizers.
        against (str | Path, optional): ``.int.mlir`` or ``.hbm`` of this checkpoint whose outputs
            are held against the integers; ``hbdk4``: what the vendor's package makes of it.
            Defaults to nothing.
        images (int): First validation images, at most that many. Defaults to 32.
        int_images (int): Of them, those whose integers are compared op by op. Defaults to 2.
        score_thr (float): Boxes below are no objects. Defaults to 0.3.
        kernels (str): Kernel set of the integers. Defaults to the fast one.

    Returns:
        dict: What ``compare.json`` holds.

    Raises:
        BpuError: A checkpoint of another stage or model, no data, or a folder that cannot be
            written.
    """
    _require_counts(images=images, int_images=int_images)
    if not 0 <= score_thr <= 1:
        raise BpuError(f'parameter score_thr: expected a number from 0 to 1, found {score_thr}')
    require_folder(out_dir)
    checkpoint, float_checkpoint, against = (
        path if path is None else str(path) for path in (checkpoint, float_checkpoint, against))
    stage = stage_of(_of_stage(checkpoint, QUANTIZED_STAGES, 'compare it with its float model'))
    floats = None if float_checkpoint is None else _of_stage(
        float_checkpoint, (FLOAT, ), 'be what the quantized model is compared with')
    other = None
    if against == VENDOR:
        require_vendor(f'parameter against={VENDOR!r}')
    elif against is not None:
        other = load_artifact(against, kernels)
    settings_of(cfg)
    loader = val_loader(cfg)
    model = load_quantized(cfg, checkpoint)
    networks = quantized_graphs(model)
    conversion = lower_networks(networks).convert()
    rows = [row for network in networks for row in network.rows]
    if against == VENDOR:
        other = vendor_module(conversion.module, program_from_module(conversion.result),
                              cfg.bpu.march)
    module = None if floats is None else _float_module(cfg, floats, float_checkpoint)
    planes = None if other is None else byte_inputs(cfg, 'val_dataloader', other)
    analysis = analyze(loader, model, conversion, rows, images, int_images, score_thr, kernels,
                       module, other, planes)
    report = dict(checkpoint=str(checkpoint), stage=stage, float_checkpoint=float_checkpoint,
                  against=against, score_thr=score_thr,
                  int_images=min(int_images, len(analysis.images)), **analysis.as_dict())
    with staged_folder(out_dir) as folder:
        _write(folder, report, analysis, cfg)
    return report


def _require_counts(**counts: int) -> None:
    for name, count in counts.items():
        least = 1 if name == 'images' else 0
        if count < least:
            raise BpuError(f'parameter {name}: expected {least} or more, found {count}')


def _of_stage(checkpoint: str, stages: tuple, purpose: str) -> dict:
    loaded = read_checkpoint(checkpoint)
    check_stage(loaded, stages, checkpoint, purpose)
    return loaded


def _float_module(cfg: Config, loaded: dict, path: str) -> ModuleOp:
    """HBIR of a float checkpoint; its scales mean nothing, its quantizers are never on."""
    settings = settings_of(cfg)
    model = deployable_detector(cfg, settings)
    load_strictly(model, loaded['state_dict'], path)
    prepare(model, dict(settings, calibration=dict(observer='minmax')))
    for quantizer in quantization_of(model).quantizers.values():
        quantizer.calibrated.fill_(True)
    return lower_networks(quantized_graphs(model)).module


def _write(folder: Path, report: Dict[str, Any], analysis: QuantAnalysis, cfg: Config) -> None:
    chosen = [row['index'] for row in worst(report['tensors'], 'sqnr_db', HISTOGRAMS)]
    histograms = {index: analysis.comparison.histograms[index].as_plain() for index in chosen}
    pictures = []
    for image in analysis.worst_images(PICTURES):
        picture = drawn(image, class_names(cfg), report['score_thr'])
        if picture is not None:
            pictures.append((image.as_row(), picture))
    stored = dict(report, histograms=histograms)
    (folder / f'{COMPARISON}.json').write_text(json.dumps(stored, indent=1) + '\n', 'utf-8')
    (folder / f'{COMPARISON}.csv').write_text(_as_csv(report['tensors']), 'utf-8')
    (folder / f'{COMPARISON}.html').write_text(render(report, histograms, pictures), 'utf-8')


def _as_csv(rows: list) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ['site'], lineterminator='\n')
    writer.writeheader()
    for row in rows:
        writer.writerow({name: ' x '.join(map(str, value)) if isinstance(value, list) else value
                         for name, value in row.items()})
    return text.getvalue()
