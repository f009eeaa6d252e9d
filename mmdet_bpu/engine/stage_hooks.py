"""Which of a config's hooks a stage keeps, and in what state."""
from typing import Any, List, Optional

from mmdet.engine.hooks import PipelineSwitchHook, YOLOXModeSwitchHook
from mmdet.registry import HOOKS
from mmengine.config import ConfigDict
from mmengine.hooks import EMAHook

from mmdet_bpu.engine.stage_names import CALIBRATION, EXECUTABLE_STAGES
from mmdet_bpu.families.config_reading import class_of

# They change how training data is made, at an epoch of the float run.
SWITCHES = (PipelineSwitchHook, YOLOXModeSwitchHook)


def is_hook(config: Any, *classes: type) -> bool:
    """Whether a hook's config is of one of ``classes`` or of a subclass."""
    found = class_of(config, HOOKS)
    return isinstance(found, type) and issubclass(found, classes)


def hooks_of_stage(hooks: List[Any], stage: str) -> List[Any]:
    """Custom hooks as a stage needs them.

    Calibration has one epoch and no training data of its own: hooks that switch it are left out, and
    moving averages begin at once. An executable has no weights to train or to average.

    Args:
        hooks (list): The config's ``custom_hooks``; not changed.
        stage (str): Stage of the run.

    Returns:
        list: Those that remain, in their order.
    """
    kept = [_of_stage(hook, stage) for hook in hooks]
    return [hook for hook in kept if hook is not None]


def _of_stage(hook: Any, stage: str) -> Optional[Any]:
    if stage == CALIBRATION:
        return None if is_hook(hook, *SWITCHES) else begun(hook)
    if stage in EXECUTABLE_STAGES and is_hook(hook, *SWITCHES, EMAHook):
        return None
    return hook


def begun(hook: Any) -> Any:
    """A moving average that begins at the first step; other hooks as they are."""
    if not is_hook(hook, EMAHook):
        return hook
    return ConfigDict({key: value for key, value in hook.items()
                       if key not in ('begin_epoch', 'begin_iter')})
