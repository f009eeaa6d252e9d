"""The verbs of the command line as functions.

Each takes a config (see :func:`mmdet_bpu.engine.stages.load_config`) and paths, and returns what
it made. ``tools/*.py`` parse arguments and call these.
"""
import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn
from xdsl.dialects.builtin import ModuleOp

import mmdet_bpu.registration  # noqa: F401  (registers our modules)
from mmdet_bpu.compiler import CompileResult, HbmSimulator, compile_hbm
from mmdet_bpu.deploy_metadata import deploy_metadata
from mmdet_bpu.engine.stages import complete_config
from mmdet_bpu.engine.weights import check_stage, load_strictly, read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.export import export_model
from mmdet_bpu.hbir.interpreter import Interpreter
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.program import program_from_module
from mmdet_bpu.hbir.text import print_text, read_text, write_text
from mmdet_bpu.quantization import model_report, prepare, set_quant_state

QUANTIZED = ('calibration', 'qat')
HBIR_FILE, INT_FILE, REPORT_FILE, HBM_FILE = ('model.hbir.mlir', 'model.int.mlir',
                                              'model.quant.json', 'model.hbm')


@dataclass
class IntegerModel:
    """A detector in fake-quantized and integer form.

    Attributes:
        hbir (ModuleOp): Fake-quantized HBIR.
        integer (ModuleOp): The same in the integer dialect, with metadata.
        report (list[dict]): One row per tensor: site, op, shape, dtype, scale, rule.
        notes (list[dict]): What the passes did: tables, enlarged scales, widened operands.
    """
    hbir: ModuleOp
    integer: ModuleOp
    report: List[dict]
    notes: List[dict]


def build_detector(cfg: Config) -> nn.Module:
    """The stock detector of a config, on CPU, without initialising its weights."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    # mmdet's detectors write into the config that they are built from.
    return MODELS.build(copy.deepcopy(cfg.model)).eval()


def settings_of(cfg: Config) -> Dict[str, Any]:
    """Complete a config in place and return its validated ``bpu`` settings."""
    if cfg.get('bpu') is None:
        raise BpuError('the config has no key bpu; pass a stage, or inherit from configs/qat.py')
    return complete_config(cfg)


def load_quantized(cfg: Config, checkpoint: str) -> nn.Module:
    """A prepared detector with the weights and scales of a calibration or QAT checkpoint.

    Raises:
        BpuError: The checkpoint is of another stage, or its keys do not fit the config.
    """
    settings = settings_of(cfg)
    loaded = read_checkpoint(checkpoint)
    check_stage(loaded, QUANTIZED, checkpoint, 'make an integer model')
    model = prepare(build_detector(cfg), settings)
    load_strictly(model, loaded['state_dict'], checkpoint)
    set_quant_state(model, 'quantize')
    return model


def class_names(cfg: Config) -> List[str]:
    """Class names of the test data: the config's metainfo, else those of the dataset class."""
    from mmdet.registry import DATASETS
    dataset = (cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}).get('dataset') or {}
    while dataset.get('dataset') is not None:
        dataset = dataset['dataset']
    names = (dataset.get('metainfo') or {}).get('classes')
    if not names and dataset.get('type'):
        cls = DATASETS.get(dataset['type']) if isinstance(dataset['type'], str) else dataset['type']
        names = getattr(cls, 'METAINFO', {}).get('classes')
    count = cfg.model.bbox_head.get('num_classes')
    return list(names) if names and (count is None or len(names) == count) else []


def to_integers(model: nn.Module, metadata: Optional[dict] = None) -> IntegerModel:
    """HBIR and integer form of a prepared, calibrated detector."""
    hbir = export_model(model)
    integer, notes = convert(hbir, metadata)
    return IntegerModel(hbir, integer, model_report(model), notes)


def export_hbir(cfg: Config, checkpoint: str) -> IntegerModel:
    """Fixed-point model of a calibration or QAT checkpoint."""
    model = load_quantized(cfg, checkpoint)
    return to_integers(model, deploy_metadata(cfg, class_names(cfg)))


def write_export(exported: IntegerModel, out_dir: Union[str, Path]) -> Dict[str, Path]:
    """Write ``model.hbir.mlir``, ``model.int.mlir`` and ``model.quant.json``; returns their paths."""
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in (HBIR_FILE, INT_FILE, REPORT_FILE)}
    for path, module in ((paths[HBIR_FILE], exported.hbir), (paths[INT_FILE], exported.integer)):
        partial = path.with_name(path.name + '.partial')
        write_text(module, partial)
        os.replace(partial, path)
    partial = paths[REPORT_FILE].with_name(REPORT_FILE + '.partial')
    content = dict(tensors=exported.report, notes=exported.notes)
    partial.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    os.replace(partial, paths[REPORT_FILE])
    return paths


def compile_integer(exported: IntegerModel, path: Union[str, Path], march: str,
                    backend: str = 'auto') -> CompileResult:
    """Compile to ``.hbm`` with its report beside it; see :func:`mmdet_bpu.compiler.compile_hbm`."""
    from mmdet_bpu.backends import choose_backend
    text = print_text(exported.hbir) if choose_backend(backend) == 'hbdk4' else None
    return compile_hbm(program_from_module(exported.integer), path, march,
                       quant_report=exported.report, backend=backend, hbir_text=text)


def load_artifact(path: Union[str, Path]) -> Any:
    """Executable of a ``model.int.mlir`` or a ``model.hbm``: ``run({name: integers})``.

    Raises:
        BpuError: No such file, neither kind, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise BpuError(f'artefact {path} not found')
    if path.suffix == '.hbm':
        return HbmSimulator(path)
    if path.suffix == '.mlir':
        return Interpreter(program_from_module(read_text(path)))
    raise BpuError(f'{path}: expected a model.int.mlir or a model.hbm')


def load_executable(cfg: Config, path: Union[str, Path], stage: str) -> Any:
    """What stage ``int`` or ``hbm`` evaluates.

    Stage ``int`` takes a calibration or QAT checkpoint, converted on the fly, or a ``.int.mlir``;
    stage ``hbm`` takes a ``.hbm``.

    Raises:
        BpuError: The file is of another kind than the stage takes.
    """
    suffix = Path(path).suffix
    expected = {'hbm': ('.hbm', ), 'int': ('.mlir', '.pth', '.pt')}[stage]
    if suffix not in expected:
        raise BpuError(f'stage {stage!r} takes a {" or ".join(expected)} file, found {path}')
    if stage == 'int' and suffix != '.mlir':
        return Interpreter(program_from_module(export_hbir(cfg, str(path)).integer))
    return load_artifact(path)
