"""Detection in pictures, by a checkpoint with its config or by an artefact alone."""
import mmdet_bpu.registration  # noqa: F401,I001  (registers our modules)

from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, Tuple, Union

from mmengine.config import Config

from mmdet_bpu.apis.models import (CHECKPOINT_SUFFIXES, build_detector, load_quantized,
                                   settings_of)
from mmdet_bpu.choices import KERNELS
from mmdet_bpu.datasets.picture_files import check_frames
from mmdet_bpu.engine.config_errors import refused_config
from mmdet_bpu.engine.loading import load_strictly
from mmdet_bpu.engine.picture_run import detect_in_pictures
from mmdet_bpu.engine.predictors import ArtifactPredictor, DetectorPredictor
from mmdet_bpu.engine.stage_names import QUANTIZED_STAGES
from mmdet_bpu.engine.weights import read_checkpoint, stage_of
from mmdet_bpu.families.class_names import class_names
from mmdet_bpu.lowering.artifact_formats import load_artifact
from mmdet_bpu.output_folder import require_folder


def load_predictor(path: Union[str, Path], cfg_of: Callable[[str], Config],
                   kernels: str = KERNELS[0]) -> Any:
    """What detects in a picture: a checkpoint with its config, or an artefact alone.

    Args:
        path (str | Path): A ``.pth`` of any stage, a ``.int.mlir`` or a ``.hbm``.
        cfg_of (Callable): Stage -> config with that stage; asked only for a checkpoint.
        kernels (str): Kernel set that computes an artefact. Defaults to the fast one.

    Raises:
        BpuError: No such file, or it does not fit the config.
    """
    if Path(path).suffix not in CHECKPOINT_SUFFIXES:
        return ArtifactPredictor(load_artifact(path, kernels), title=Path(path).name)
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
          score_thr: float = 0.3, kernels: str = KERNELS[0],
          frame_size: Optional[Tuple[int, int]] = None) -> Dict[str, Any]:
    """Draw what models detect in pictures; several models stand side by side.

    Args:
        models (Sequence[str | Path]): See :func:`load_predictor`.
        images (str | Path | Sequence): Files and folders.
        out_dir (str | Path): Folder to write.
        cfg_of (Callable): Stage -> config with that stage.
        score_thr (float): Boxes below this score are left out. Defaults to 0.3.
        kernels (str): Kernel set that computes artefacts. Defaults to the fast one.
        frame_size (tuple[int, int], optional): (width, height) of raw NV12 frames among the files,
            px. Defaults to none: all are pictures.

    Returns:
        dict: See :func:`mmdet_bpu.engine.picture_run.detect_in_pictures`.
    """
    require_folder(out_dir)
    if frame_size is not None:
        check_frames(*frame_size)
    predictors = [load_predictor(path, cfg_of, kernels) for path in models]
    return detect_in_pictures(predictors, images, out_dir, score_thr, frame_size)
