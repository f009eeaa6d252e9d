"""Metrics say which stage they are of."""
from typing import Dict, Optional

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


def prefixed(metrics: Dict[str, float], prefix: str) -> Dict[str, float]:
    """``{'coco/bbox_mAP': 0.4}`` as ``{'qat/coco/bbox_mAP': 0.4}``."""
    return {f'{prefix}/{name}': value for name, value in metrics.items()}


@HOOKS.register_module()
class StageMetricHook(Hook):
    """Add every metric once more under the stage's name.

    The plain names stay, and stay first: ``save_best`` reads them.

    Args:
        prefix (str): Stage, e.g. ``'qat'``.
        known (tuple[str]): Prefixes of metrics that already say what they are of.
    """

    # Before RuntimeInfoHook (VERY_HIGH), which hands the metrics on to logs and checkpoints.
    priority = 'HIGHEST'

    def __init__(self, prefix: str, known: tuple = ()) -> None:
        self.prefix = prefix
        self.known = tuple(f'{name}/' for name in (prefix, *known))

    def after_val_epoch(self, runner, metrics: Optional[Dict[str, float]] = None) -> None:
        """Extend the metrics of a validation in place."""
        self._extend(metrics)

    def after_test_epoch(self, runner, metrics: Optional[Dict[str, float]] = None) -> None:
        """Extend the metrics of a test in place."""
        self._extend(metrics)

    def _extend(self, metrics: Optional[Dict[str, float]]) -> None:
        if metrics:
            metrics.update(prefixed({name: value for name, value in metrics.items()
                                     if not name.startswith(self.known)}, self.prefix))
