"""The verbs of the command line as functions.

Most take a config (see :func:`load_config`) and paths, and return what they made. ``tools/*.py``
parse arguments and call these.
"""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)

# isort: split
import copy
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

import mmdet_bpu.registration  # noqa: F401  (registers our modules)
from mmdet_bpu.analysis import model_check
from mmdet_bpu.analysis.flops import FlopCount, count_model
from mmdet_bpu.analysis.model_check import (ModelCheck, check_float, check_prepared, list_sites,
                                            set_random_weights)
from mmdet_bpu.analysis.qat_vs_int import compare_qat_int, summarize
from mmdet_bpu.backends.choice import choose_backend
from mmdet_bpu.backends.compile import compile_hbm
from mmdet_bpu.compiler.compile import CompileResult
from mmdet_bpu.compiler.legality import refuse_errors
from mmdet_bpu.compiler.march import get_march
from mmdet_bpu.datasets.digits import make_digits
from mmdet_bpu.datasets.lmdb_packer import pack_coco as pack
from mmdet_bpu.datasets.lmdb_verify import verify_database as verify
from mmdet_bpu.datasets.packing_report import report_lines
from mmdet_bpu.engine import stages
from mmdet_bpu.engine.compare_executables import compare_executables, integer_images
from mmdet_bpu.engine.config_errors import refused_config
from mmdet_bpu.engine.config_options import parse_options
from mmdet_bpu.engine.evaluation import evaluate as run_evaluation
from mmdet_bpu.engine.picture_run import detect_in_pictures
from mmdet_bpu.engine.predictors import ArtifactPredictor, DetectorPredictor, contract_of
from mmdet_bpu.engine.prepared import prepare_from
from mmdet_bpu.engine.recipe_report import recipe_lines
from mmdet_bpu.engine.stage_names import EXECUTABLE_STAGES, QUANTIZED_STAGES
from mmdet_bpu.engine.stages import complete_config
from mmdet_bpu.engine.training import set_run, train
from mmdet_bpu.engine.weights import check_stage, load_strictly, read_checkpoint, stage_of
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.families.class_names import class_names
from mmdet_bpu.families.contract import deploy_metadata
from mmdet_bpu.families.fitting_shape import require_fitting_shape
from mmdet_bpu.families.refusals import refuse_config, refuse_model
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.text import print_text
from mmdet_bpu.lowering.artifact_formats import FORMATS, load_artifact, writable_format
from mmdet_bpu.lowering.artifacts import (CONTRACT_FILE, HBM_FILE, IntegerModel, to_integers,
                                          write_export)
from mmdet_bpu.lowering.export import export_networks
from mmdet_bpu.models.plain_norms import SYNCHRONIZED, open_norms
from mmdet_bpu.output_folder import staged_folder, write_atomically
from mmdet_bpu.quantization import quantization_of, quantized_graphs, set_quant_state
from mmdet_bpu.steps import Step, silent

__all__ = ['check_model', 'compare_stages', 'count_flops', 'deploy', 'evaluate', 'export', 'infer',
           'load_config', 'make_digits', 'pack', 'recipe_lines', 'recipes_of', 'refuse_errors',
           'report_lines', 'sites_of', 'train', 'verify']

CHECKPOINT_SUFFIXES = ('.pth', '.pt')
CHECK_STEPS = 1 + model_check.STEPS
EXPORT_STEPS = 2
DEPLOY_STEPS = 4
"""How many steps :func:`check_model`, :func:`export` and :func:`deploy` tell of."""


def load_config(config: str, stage: Optional[str] = None,
                cfg_options: Sequence[str] = ()) -> Config:
    """Read a config and put a stage over it.

    Args:
        config (str): Path of a config, or ``mmdet::...`` of an installed package.
        stage (str, optional): See :func:`mmdet_bpu.engine.stages.load_config`.
        cfg_options (Sequence[str]): Overrides, each KEY=VALUE; they win over the stage.

    Raises:
        BpuError: No such config, it cannot be parsed, no such stage, or a wrong override.
    """
    return stages.load_config(config, stage, parse_options(cfg_options or ()))


def build_detector(cfg: Config) -> nn.Module:
    """The stock detector of a config, on CPU, without initialising its weights.

    Raises:
        BpuError: It is of a kind that cannot be deployed.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    refuse_config(cfg)
    # mmdet's detectors write into the config that they are built from.
    with refused_config(cfg):
        model = MODELS.build(copy.deepcopy(cfg.model)).eval()
    open_norms(model, SYNCHRONIZED)
    refuse_model(model, cfg)
    return model


def deployable_detector(cfg: Config, settings: Dict[str, Any]) -> nn.Module:
    """The stock detector of a completed config, if it can take the deployed input.

    Raises:
        BpuError: Backbone and neck cannot take ``bpu.input_shape``; the message names shapes that
            fit.
    """
    model = build_detector(cfg)
    require_fitting_shape(model, settings['input_shape'])
    return model


def settings_of(cfg: Config) -> Dict[str, Any]:
    """Complete a config in place and return its validated ``bpu`` settings.

    Raises:
        BpuError: A setting is wrong, or the config's detector cannot be deployed.
    """
    refuse_config(cfg)
    if cfg.get('bpu') is None:
        raise BpuError('the config has no key bpu; pass a stage, or inherit from configs/qat.py')
    return complete_config(cfg).as_dict()


def load_quantized(cfg: Config, checkpoint: str) -> nn.Module:
    """A prepared detector with the weights and scales of a calibration or QAT checkpoint.

    Raises:
        BpuError: The checkpoint is of another stage, or its keys do not fit the config.
    """
    settings = settings_of(cfg)
    loaded = read_checkpoint(checkpoint)
    check_stage(loaded, QUANTIZED_STAGES, checkpoint, 'make an integer model')
    model = prepare_from(deployable_detector(cfg, settings), settings, loaded, checkpoint)
    set_quant_state(model, 'quantize')
    return model


def metadata_of(cfg: Config, model: nn.Module) -> Dict[str, Any]:
    """Metadata of a prepared detector's artefacts: its deploy contract."""
    network, = quantization_of(model).networks
    return deploy_metadata(cfg, model, network.graph.output_tree, class_names(cfg))


def export_hbir(cfg: Config, checkpoint: str) -> IntegerModel:
    """Fixed-point model of a calibration or QAT checkpoint."""
    model = load_quantized(cfg, checkpoint)
    return to_integers(quantized_graphs(model), metadata_of(cfg, model))


def load_executable(cfg: Config, path: Union[str, Path], stage: str) -> Any:
    """What stage ``int`` or ``hbm`` evaluates.

    Stage ``int`` takes a calibration or QAT checkpoint, converted on the fly, or a ``.int.mlir``;
    stage ``hbm`` takes a ``.hbm``.

    Raises:
        BpuError: The file is of another kind than the stage takes.
    """
    checkpoints = CHECKPOINT_SUFFIXES if stage == 'int' else ()
    expected = (FORMATS[stage].suffix, *checkpoints)
    if not Path(path).name.endswith(expected):
        raise BpuError(f'stage {stage!r} takes a {" or ".join(expected)} file, found {path}')
    if Path(path).suffix in checkpoints:
        return Interpreter(program_from_module(export_hbir(cfg, str(path)).integer))
    return load_artifact(path)


def evaluate(cfg: Config, model: Union[str, Path], work_dir: Optional[str] = None,
             deploy_preprocessing: bool = False, launcher: str = 'none') -> Dict[str, float]:
    """Metrics of a checkpoint or an artefact on the config's test data.

    Args:
        cfg (Config): A config with the stage to evaluate; completed in place.
        model (str | Path): A checkpoint of that stage, or see :func:`load_executable`.
        work_dir (str, optional): Folder of logs. Defaults to the config's, else
            ``work_dirs/CONFIG_STAGE``.
        deploy_preprocessing (bool): Feed a float model as every later stage is fed.
        launcher (str): Job launcher.

    Raises:
        BpuError: The config has no stage, or the file does not fit it.
    """
    if cfg.get('bpu') is None:
        raise BpuError(f'config {cfg.filename} has no stage of its own; give parameter stage')
    stage = cfg.bpu.stage
    set_run(cfg, work_dir, launcher)
    cfg.resume = False
    if deploy_preprocessing:
        cfg.bpu.deploy_preprocessing = True
    if stage in EXECUTABLE_STAGES:
        cfg.load_from = None
        return run_evaluation(cfg, load_executable(cfg, model, stage))
    cfg.load_from = str(model)
    return run_evaluation(cfg)


def count_flops(cfg: Config, shape: Tuple[int, int]) -> FlopCount:
    """Multiply-accumulates of a config's float detector at (height, width) px."""
    return count_model(build_detector(cfg), shape)


def check_model(cfg: Config, march: Optional[str] = None, checkpoint: Optional[str] = None,
                step: Step = silent) -> ModelCheck:
    """Whether a detector can be deployed, and why not; weights are not needed.

    Args:
        cfg (Config): A config with a stage.
        march (str, optional): Defaults to ``bpu.march``.
        checkpoint (str, optional): Of any stage. Defaults to None: random weights. The scales of a
            float or random model are those of one random image.
        step (Step): Told of each step.

    Raises:
        BpuError: The model cannot be captured or lowered (site named), a setting or the checkpoint
            is wrong. Findings of level error do not raise.
    """
    settings = settings_of(cfg)
    march = get_march(march or settings['march']).name
    metadata = functools.partial(metadata_of, cfg)
    step('build')
    loaded = None if checkpoint is None else read_checkpoint(checkpoint)
    if loaded is not None and stage_of(loaded) in QUANTIZED_STAGES:
        return check_prepared(load_quantized(cfg, checkpoint), march, metadata, step)
    model = deployable_detector(cfg, settings)
    if loaded is None:
        set_random_weights(model)
    else:
        load_strictly(model, loaded['state_dict'], checkpoint)
    return check_float(model, settings, march, metadata, step)


def recipes_of(config: str, cfg_options: Sequence[str] = ()) -> List[Dict[str, Any]]:
    """How each stage of a config trains, see :func:`mmdet_bpu.engine.recipe_report.recipe_of`.

    Args:
        config (str): As for :func:`load_config`.
        cfg_options (Sequence[str]): As there.

    Raises:
        BpuError: As there.
    """
    return stages.recipes(config, parse_options(cfg_options or ()))


def sites_of(cfg: Config) -> List[dict]:
    """Rows of a config's tensors under the template alone: names for ``bpu.qconfig`` rules."""
    settings = settings_of(cfg)
    return list_sites(deployable_detector(cfg, settings), settings)


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
        BpuError: A checkpoint of another stage, a format that no export makes, or a folder that
            cannot be written.
    """
    for name in formats:
        writable_format(name)
    step('load and export')
    exported = export_hbir(cfg, checkpoint)
    step('write')
    with staged_folder(out_dir) as folder:
        names = sorted(write_export(exported, folder, formats))
    return [Path(out_dir) / name for name in names]


def deploy(cfg: Config, checkpoint: str, out_dir: Union[str, Path], march: Optional[str] = None,
           backend: str = 'auto', step: Step = silent) -> Tuple[CompileResult, List[Path]]:
    """From a calibration or QAT checkpoint to every file of a deployment, or to none of them.

    Args:
        cfg (Config): A config with a stage.
        checkpoint (str): Of stage calibration or qat.
        out_dir (str | Path): Folder to write.
        march (str, optional): Defaults to ``bpu.march``.
        backend (str): ``auto``, ``sim`` or ``hbdk4``; see
            :func:`mmdet_bpu.backends.choose_backend`.
        step (Step): Told of each step.

    Returns:
        tuple[CompileResult, list[Path]]: The compilation, and all files.

    Raises:
        BpuError: Unknown march or backend, a checkpoint of another stage, an op that cannot run on
            the march, or a folder that cannot be written.
    """
    cfg.bpu.march = get_march(march or settings_of(cfg)['march']).name
    choose_backend(backend)
    step('load and prepare')
    model = load_quantized(cfg, checkpoint)
    step('export')
    exported = to_integers(quantized_graphs(model), metadata_of(cfg, model))
    out = Path(out_dir)
    with staged_folder(out) as folder:
        step('write')
        write_export(exported, folder)
        step(f'compile for {cfg.bpu.march}')
        text = print_text(exported.hbir) if choose_backend(backend) == 'hbdk4' else None
        result = compile_hbm(program_from_module(exported.integer), folder / HBM_FILE,
                             cfg.bpu.march, exported.report, backend, text)
        contract = contract_of(HbmSimulator(result.simulator_path))
        write_atomically(folder / CONTRACT_FILE, (json.dumps(contract, indent=1) + '\n').encode())
        names = sorted(f.relative_to(folder) for f in folder.rglob('*') if f.is_file())
        moved = {name: out / getattr(result, name).relative_to(folder) for name in
                 ('path', 'simulator_path', 'report_json', 'report_html')}
    return replace(result, **moved), [out / name for name in names]


def load_predictor(path: Union[str, Path], cfg_of: Callable[[str], Config]) -> Any:
    """What detects in a picture: a checkpoint with its config, or an artefact alone.

    Args:
        path (str | Path): A ``.pth`` of any stage, a ``.int.mlir`` or a ``.hbm``.
        cfg_of (Callable): Stage -> config with that stage; asked only for a checkpoint.

    Raises:
        BpuError: No such file, or it does not fit the config.
    """
    if Path(path).suffix not in CHECKPOINT_SUFFIXES:
        return ArtifactPredictor(load_artifact(path), title=Path(path).name)
    loaded = read_checkpoint(str(path))
    stage = stage_of(loaded)
    cfg = cfg_of(stage)
    settings_of(cfg)
    if stage in QUANTIZED_STAGES:
        model = load_quantized(cfg, str(path))
    else:
        model = build_detector(cfg)
        load_strictly(model, loaded['state_dict'], str(path))
    with refused_config(cfg):
        return DetectorPredictor(model, cfg, class_names(cfg), f'{Path(path).name} ({stage})')


def infer(models: Sequence[Union[str, Path]], images: Union[str, Path, Sequence],
          out_dir: Union[str, Path], cfg_of: Callable[[str], Config],
          score_thr: float = 0.3) -> Dict[str, Any]:
    """Draw what models detect in pictures; several models stand side by side.

    Args:
        models (Sequence[str | Path]): See :func:`load_predictor`.
        images (str | Path | Sequence): Files and folders.
        out_dir (str | Path): Folder to write.
        cfg_of (Callable): Stage -> config with that stage.
        score_thr (float): Boxes below this score are left out. Defaults to 0.3.

    Returns:
        dict: See :func:`mmdet_bpu.engine.picture_run.detect_in_pictures`.
    """
    predictors = [load_predictor(path, cfg_of) for path in models]
    return detect_in_pictures(predictors, images, out_dir, score_thr)


def compare_stages(cfg: Config, checkpoint: str, integer: Union[str, Path],
                   hbm: Union[str, Path], images: Optional[int] = None,
                   qat_images: int = 2) -> Dict[str, Any]:
    """Integer against compiled on the test images; QAT against integer, op by op.

    Args:
        cfg (Config): Of a calibration or QAT stage; its test data are used.
        checkpoint (str): What both artefacts were made from.
        integer (str | Path): ``model.int.mlir``.
        hbm (str | Path): ``model.hbm``.
        images (int, optional): At most that many for integer against compiled. Defaults to all.
        qat_images (int): For QAT against integer. Defaults to 2.

    Returns:
        dict: ``images``, ``int_equals_hbm``, ``differing`` (see
        :func:`mmdet_bpu.engine.compare_executables.compare_executables`) and ``qat_vs_int``:
        ``max_lsb``, ``differing_share``, ``by_kind``, and ``above_one_lsb``, the operations that
        differ by more than 1 LSB.
    """
    model = load_quantized(cfg, checkpoint)
    first, second = load_artifact(integer), load_artifact(hbm)
    equality = compare_executables(cfg, model, first, second, images)
    hbir = export_networks(quantized_graphs(model))
    compared = [compare_qat_int(hbir, image) for image in
                integer_images(cfg, model, first.inputs[0].scale, qat_images)]
    rows = [row for result in compared for row in result['ops']]
    elements = sum(row['elements'] for row in rows)
    return dict(
        images=equality['images'],
        int_equals_hbm=equality['equal'],
        differing=equality['differing'],
        qat_vs_int=dict(
            images=len(compared),
            max_lsb=max((row['max_lsb'] for row in rows), default=0),
            differing_share=sum(row['differing'] for row in rows) / max(elements, 1),
            by_kind=summarize(rows),
            above_one_lsb=[row for row in rows if row['max_lsb'] > 1]))
