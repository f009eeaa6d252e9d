"""From a checkpoint to the files of a deployment."""
import mmdet_bpu.registration  # noqa: F401,I001  (registers our modules)

import json
from dataclasses import replace
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

from mmengine.config import Config

from mmdet_bpu.apis.models import export_hbir, load_quantized, metadata_of, settings_of
from mmdet_bpu.apis.report_pictures import (check_count, float_detector, pictures_to_draw,
                                            report_pictures)
from mmdet_bpu.backends.choice import choose_backend
from mmdet_bpu.backends.compile import compile_hbm
from mmdet_bpu.compiler.compile import CompileResult
from mmdet_bpu.compiler.march import get_march
from mmdet_bpu.compiler.report import ReportPictures
from mmdet_bpu.engine.predictors import contract_of
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.families.contract import converted_by_host
from mmdet_bpu.hbir.builder import metadata_of as metadata_in
from mmdet_bpu.hbir.camera_stage import require_vendor_form, stage_of
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.text import print_text
from mmdet_bpu.lowering.artifact_formats import FORMATS, writable_format
from mmdet_bpu.lowering.artifacts import CONTRACT_FILE, HBM_FILE, to_integers, write_export
from mmdet_bpu.lowering.onnx_form.files import only_network, write_model
from mmdet_bpu.output_folder import (atomic_file, require_folder, staged_folder,
                                     write_atomically)
from mmdet_bpu.quantization import quantized_graphs
from mmdet_bpu.steps import Step, silent

EXPORT_STEPS = 2
DEPLOY_STEPS = 5
"""How many steps :func:`export` and :func:`deploy` tell of."""


def export(cfg: Config, checkpoint: str, out_dir: Union[str, Path], step: Step = silent,
           formats: Sequence[str] = ('int', )) -> List[Path]:
    """HBIR, report and artefacts of a calibration or QAT checkpoint, or none of them.

    Args:
        cfg (Config): A config with a stage.
        checkpoint (str): Of stage calibration or qat.
        out_dir (str | Path): Folder to write.
        step (Step): Told of each step.
        formats (Sequence[str]): Of the artefacts, see
            :mod:`mmdet_bpu.lowering.artifact_formats`. Defaults to the integer module.

    Returns:
        list[Path]: The files.

    Raises:
        BpuError: A checkpoint of another stage, a format that no export makes, a camera whose
            conversion HBIR has no form for, or a folder that cannot be written.
    """
    for name in formats:
        writable_format(name)
    require_folder(out_dir)
    step('load and export')
    exported = export_hbir(cfg, checkpoint)
    require_vendor_form(stage_of(metadata_in(exported.integer)))
    step('write')
    with staged_folder(out_dir) as folder:
        names = sorted(write_export(exported, folder, formats))
    return [Path(out_dir) / name for name in names]


def export_onnx(cfg: Config, checkpoint: str, out_file: Union[str, Path], as_float: bool = False
                ) -> List[Path]:
    """The ONNX model of a calibration or QAT checkpoint; see docs/onnx.md.

    Args:
        cfg (Config): A config with a stage.
        checkpoint (str): Of stage calibration or qat.
        out_file (str | Path): File to write, whole or not at all.
        as_float (bool): Leave quantizers out. Defaults to False.

    Returns:
        list[Path]: The file, and the one with its tensors where there is one.

    Raises:
        BpuError: A checkpoint of another stage, ``onnx`` is not installed, or a file that cannot be
            written.
    """
    out = Path(out_file)
    if out.suffix != FORMATS['onnx'].suffix or not out.parent.is_dir():
        raise BpuError(f'parameter out_file: expected a {FORMATS["onnx"].suffix} file in a folder that is '
                       f'there, found {out}')
    model = load_quantized(cfg, checkpoint)
    network, metadata = only_network(quantized_graphs(model)), \
        converted_by_host(metadata_of(cfg, model))
    data = out.with_name(f'{out.name}.data')
    with atomic_file(out) as partial:
        write_model(network, partial, metadata, as_float, data.name)
        beside = partial.with_name(data.name).is_file()
    return [out, *([data] if beside else [])]


def deploy(cfg: Config, checkpoint: str, out_dir: Union[str, Path], march: Optional[str] = None,
           backend: str = 'auto', step: Step = silent, onnx: bool = False,
           pictures: Optional[int] = None, float_checkpoint: Optional[str] = None
           ) -> Tuple[CompileResult, List[Path]]:
    """From a calibration or QAT checkpoint to every file of a deployment, or to none of them.

    Args:
        cfg (Config): A config with a stage.
        checkpoint (str): Of stage calibration or qat.
        out_dir (str | Path): Folder to write.
        march (str, optional): Defaults to ``bpu.march``.
        backend (str): ``auto``, ``sim`` or ``hbdk4``; see
            :func:`mmdet_bpu.backends.choose_backend`.
        step (Step): Told of each step.
        onnx (bool): Write ``model.onnx`` too. Defaults to False.
        pictures (int, optional): First test pictures that the report shows detections in. Defaults to
            3 where the config's test data are at hand, else none.
        float_checkpoint (str, optional): Whose detections are drawn beside them. Defaults to none.

    Returns:
        tuple[CompileResult, list[Path]]: The compilation, and all files.

    Raises:
        BpuError: Unknown march or backend, a checkpoint of another stage, an op that cannot run on
            the march, pictures that were asked for and cannot be read, a camera that the vendor's compiler
            has no form for, or a folder that cannot be written.
    """
    check_count(pictures)
    if float_checkpoint is not None and pictures == 0:
        raise BpuError('parameter float_checkpoint: it is drawn in test pictures, found pictures=0')
    cfg.bpu.march = get_march(march or settings_of(cfg)['march']).name
    choose_backend(backend)
    require_folder(out_dir)
    step('load and prepare')
    found, note = pictures_to_draw(cfg, pictures)
    model = load_quantized(cfg, checkpoint)
    floating = None if float_checkpoint is None else float_detector(cfg, float_checkpoint)
    step('export')
    metadata = metadata_of(cfg, model)
    camera = stage_of(metadata)
    if choose_backend(backend) == 'hbdk4':
        require_vendor_form(camera)
    exported = to_integers(quantized_graphs(model), metadata)
    program = program_from_module(exported.integer)
    out = Path(out_dir)
    step('draw pictures')
    try:
        drawn = report_pictures(cfg, model, program, found, floating) if found else (
            ReportPictures(note=note))
    except BpuError as error:
        if pictures is not None:
            raise
        drawn = ReportPictures(note=f'No picture is drawn: {error}')
    with staged_folder(out) as folder:
        step('write')
        write_export(exported, folder, ('int', *(['onnx'] if onnx else [])))
        step(f'compile for {cfg.bpu.march}')
        text = print_text(exported.hbir) if choose_backend(backend) == 'hbdk4' else None
        result = compile_hbm(program, folder / HBM_FILE, cfg.bpu.march, exported.report, backend,
                             text, drawn, camera)
        contract = contract_of(HbmSimulator(result.simulator_path))
        write_atomically(folder / CONTRACT_FILE, (json.dumps(contract, indent=1) + '\n').encode())
        names = sorted(f.relative_to(folder) for f in folder.rglob('*') if f.is_file())
        moved = {name: out / getattr(result, name).relative_to(folder) for name in
                 ('path', 'simulator_path', 'report_json', 'report_html')}
    return replace(result, **moved), [out / name for name in names]
