"""What a detector costs, and whether it can be deployed."""
import mmdet_bpu.registration  # noqa: F401,I001  (registers our modules)

import functools
from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmengine.config import Config

from mmdet_bpu.analysis import model_check
from mmdet_bpu.analysis.flops import FlopCount, count_model
from mmdet_bpu.analysis.model_check import (ModelCheck, check_float, check_prepared, list_sites,
                                            set_random_weights)
from mmdet_bpu.apis.models import (build_detector, deployable_detector, load_quantized,
                                   metadata_of, settings_of)
from mmdet_bpu.compiler.comparison import Difference, compare_estimates
from mmdet_bpu.compiler.march import get_march
from mmdet_bpu.engine import stages
from mmdet_bpu.engine.config_options import parse_options
from mmdet_bpu.engine.loading import load_strictly
from mmdet_bpu.engine.stage_names import QUANTIZED_STAGES
from mmdet_bpu.engine.weights import read_checkpoint, stage_of
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.input_shape import INPUT_SHAPE, is_input_shape
from mmdet_bpu.steps import Step, silent

CHECK_STEPS = 1 + model_check.STEPS
"""How many steps :func:`check_model` tells of."""
COMPARE_STEPS = 2 * CHECK_STEPS
"""And :func:`compare_costs`."""


def count_flops(cfg: Config, shape: Tuple[int, int]) -> FlopCount:
    """Multiply-accumulates of a config's float detector at (height, width) px.

    Raises:
        BpuError: No size for an input, or the detector cannot be built.
    """
    if not is_input_shape(shape):
        raise BpuError(f'parameter shape: expected {INPUT_SHAPE}, found {shape}')
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


def compare_costs(first: Config, second: Config, march: Optional[str] = None, cores: int = 1,
                  step: Step = silent) -> List[Difference]:
    """What two configs' detectors cost on a march, side by side; neither is trained.

    Args:
        first (Config), second (Config): Each with a stage.
        march (str, optional): Defaults to ``bpu.march`` of the first.
        cores (int): Of the images per second. Defaults to 1.
        step (Step): Told of each step.

    Raises:
        BpuError: See :func:`check_model`; or the march has not so many cores.
    """
    march = get_march(march or settings_of(first)['march'])
    march.check_cores(cores)
    checks = [check_model(cfg, march.name, step=step) for cfg in (first, second)]
    return compare_estimates(checks[0].estimate, checks[1].estimate, cores)


def recipes_of(config: str, cfg_options: Sequence[str] = ()) -> List[Dict[str, Any]]:
    """How each stage of a config trains, see :func:`mmdet_bpu.engine.recipe_report.recipe_of`.

    Args:
        config (str): As for :func:`mmdet_bpu.apis.load_config`.
        cfg_options (Sequence[str]): As there.

    Raises:
        BpuError: As there.
    """
    return stages.recipes(config, parse_options(cfg_options or ()))


def sites_of(cfg: Config) -> List[dict]:
    """Rows of a config's tensors under the template alone: names for ``bpu.qconfig`` rules."""
    settings = settings_of(cfg)
    return list_sites(deployable_detector(cfg, settings), settings)
