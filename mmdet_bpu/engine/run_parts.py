"""What a run needs of its config in order to train, to validate and to test.

mmengine wants all fields of a purpose or none. A config without data to validate on can still train,
one without an optimizer can still be evaluated.
"""
from typing import Dict, Tuple

from mmengine.config import Config

from mmdet_bpu.errors import BpuError

PARTS: Dict[str, Tuple[str, ...]] = {
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'validate': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}


def leave_out_incomplete(cfg: Config) -> Dict[str, Tuple[str, ...]]:
    """Clear the fields of every purpose that lacks one, in place.

    Args:
        cfg (Config): A completed config.

    Returns:
        dict[str, tuple[str]]: Purpose that the run cannot serve -> fields that it lacks.
    """
    lacking = {}
    for purpose, names in PARTS.items():
        missing = tuple(name for name in names if cfg.get(name) is None)
        if missing:
            lacking[purpose] = missing
            for name in names:
                cfg[name] = None
    if 'train' in lacking:
        cfg.param_scheduler = None
    return lacking


def refuse_incomplete(purpose: str, missing: Tuple[str, ...], stage: str) -> None:
    """Raise BpuError that names what a config lacks to ``train``, ``validate`` or ``test``."""
    later = '. A config of a later stage has no float recipe to train by: give the float one' \
        if 'optim_wrapper' in missing else ''
    fields = ', '.join(f'{name} (with optimizer.lr)' if name == 'optim_wrapper' else name
                       for name in PARTS[purpose])
    raise BpuError(f'stage {stage!r} cannot {purpose}: expected {fields} in the config, found no '
                   f'{", ".join(missing or PARTS[purpose])}{later}')
