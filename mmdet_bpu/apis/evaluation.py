"""How good a stage is, and whether two stages are the same."""
import mmdet_bpu.registration  # noqa: F401,I001  (registers our modules)

from pathlib import Path
from typing import Any, Dict, Optional, Union

from mmengine.config import Config

from mmdet_bpu.analysis.qat_vs_int import compare_qat_int, summarize
from mmdet_bpu.apis.models import load_executable, load_quantized
from mmdet_bpu.choices import KERNELS
from mmdet_bpu.engine.compare_executables import compare_executables, integer_images
from mmdet_bpu.engine.evaluation import evaluate as run_evaluation
from mmdet_bpu.engine.stage_names import EXECUTABLE_STAGES
from mmdet_bpu.engine.training import set_run
from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import find_function
from mmdet_bpu.hbir.types import value_type
from mmdet_bpu.lowering.artifact_formats import load_artifact
from mmdet_bpu.lowering.export import lower_networks
from mmdet_bpu.quantization import quantized_graphs


def evaluate(cfg: Config, model: Union[str, Path], work_dir: Optional[str] = None,
             deploy_preprocessing: bool = False, launcher: str = 'none',
             kernels: str = KERNELS[0]) -> Dict[str, float]:
    """Metrics of a checkpoint or an artefact on the config's test data.

    Args:
        cfg (Config): A config with the stage to evaluate; completed in place.
        model (str | Path): A checkpoint of that stage, or see :func:`load_executable`.
        work_dir (str, optional): Folder of logs. Defaults to the config's, else
            ``work_dirs/CONFIG_STAGE``.
        deploy_preprocessing (bool): Feed a float model as every later stage is fed.
        launcher (str): Job launcher.
        kernels (str): Kernel set that computes an integer artefact. Defaults to the fast one.

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
        return run_evaluation(cfg, load_executable(cfg, model, stage, kernels))
    cfg.load_from = str(model)
    return run_evaluation(cfg)


def compare_stages(cfg: Config, checkpoint: str, integer: Union[str, Path],
                   hbm: Union[str, Path], images: Optional[int] = None,
                   qat_images: int = 2, kernels: str = KERNELS[0]) -> Dict[str, Any]:
    """Integer against compiled on the test images; QAT against integer, op by op.

    Args:
        cfg (Config): Of a calibration or QAT stage; its test data are used.
        checkpoint (str): What both artefacts were made from.
        integer (str | Path): ``model.int.mlir``.
        hbm (str | Path): ``model.hbm``.
        images (int, optional): At most that many for integer against compiled. Defaults to all.
        qat_images (int): For QAT against integer. Defaults to 2.
        kernels (str): Kernel set that computes both artefacts. Defaults to the fast one.

    Returns:
        dict: ``images``, ``int_equals_hbm``, ``differing`` (see
        :func:`mmdet_bpu.engine.compare_executables.compare_executables`) and ``qat_vs_int``:
        ``max_lsb``, ``differing_share``, ``by_kind``, and ``above_one_lsb``, the operations that
        differ by more than 1 LSB.
    """
    model = load_quantized(cfg, checkpoint)
    first, second = (load_artifact(path, kernels) for path in (integer, hbm))
    equality = compare_executables(cfg, model, first, second, images)
    conversion = lower_networks(quantized_graphs(model)).convert()
    image, = find_function(conversion.result).body.block.args
    compared = [compare_qat_int(conversion, image) for image in
                integer_images(cfg, model, value_type(image).scale, qat_images)]
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
