"""Queries that exist in training alone: no quantizer touches them.

DINO puts denoising queries before those that are deployed, and keeps the two apart by a mask. Scales
are calibrated without them; rounded on such scales they would saturate, and a mask of ``-inf``, which
saturates too, would let the deployed queries see ground truth. So the deployed part of every tensor
is quantized as in prediction and the rest stays in float.
"""
import functools
from itertools import product
from typing import Optional, Sequence, Tuple

from torch import nn

from mmdet_bpu.graph.sites import active_tracker


class _Counted:
    """Mixin of the part that makes denoising queries: it notes how many it made."""

    def __call__(self, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        tracker = active_tracker()
        if tracker is not None:
            batch, tracker.extra_queries = made[0].shape[:2]
            tracker.batch = batch
        return made


@functools.lru_cache(maxsize=None)
def _counted_class(cls: type) -> type:
    return type(cls.__name__, (_Counted, cls), {'__module__': cls.__module__})


def count_queries(model: nn.Module, path: Optional[str]) -> None:
    """Let the part at ``path`` note what it makes, in place; its class is exchanged, so copies do too.

    Args:
        model (nn.Module): A detector.
        path (str, optional): What :meth:`mmdet_bpu.families.base.Family.denoising` gave.
    """
    part = None if path is None else model.get_submodule(path)
    if part is not None and not isinstance(part, _Counted):
        part.__class__ = _counted_class(type(part))


@functools.lru_cache(maxsize=4096)
def deployed_part(shape: Tuple[int, ...], captured: Tuple[int, ...], extra: int,
                  batch: int) -> Optional[Tuple[slice, ...]]:
    """Where in a training tensor the elements of the deployed queries are.

    One dimension holds the images; it may be one with the queries, which then vary slower. A
    dimension that has grown by the number of denoising queries has the deployed ones last.

    Args:
        shape (tuple[int]): Of the tensor in training.
        captured (tuple[int]): Of the same tensor in prediction of one image.
        extra (int): Denoising queries of an image.
        batch (int): Images.

    Returns:
        tuple[slice] | None: One per dimension, or None if every element is deployed.
    """
    if len(shape) != len(captured):
        return None
    choices = [_readings(found, size, extra, batch) for found, size in zip(shape, captured)]
    readings = [reading for reading in product(*choices) if sum(b for b, _ in reading) == 1]
    if not readings or any(not any(grown for _, grown in reading) for reading in readings):
        return None
    reading = readings[0]
    return tuple(
        slice(found - size * (batch if holds_batch else 1), None) if grown else slice(None)
        for found, size, (holds_batch, grown) in zip(shape, captured, reading))


def _readings(found: int, size: int, extra: int, batch: int) -> Sequence[Tuple[bool, bool]]:
    """What a dimension can be: (holds the images, holds denoising queries)."""
    return [(holds_batch, grown) for holds_batch in (False, True) for grown in (False, True)
            if found == (size + extra * grown) * (batch if holds_batch else 1)]
