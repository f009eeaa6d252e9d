"""Activation checkpointing: what runs again in the backward pass is quantized there too.

``with_cp=True`` of a backbone and ``activation_checkpointing`` of a config drop activations and run
a part of the forward again when gradients are asked for, long after the detector's forward has ended. It
is run again with the calls' places and the quantizers that it had, and observers do not look twice.
"""
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Callable, Iterator

import torch.utils.checkpoint as checkpointing
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.sites import SiteTracker, tracking


@contextmanager
def recomputing_alike(tracker: SiteTracker, mode: Any) -> Iterator[None]:
    """Let functions that torch checkpoints inside run again under ``mode``, whenever that is.

    Args:
        tracker (SiteTracker): Of the forward that runs inside.
        mode (QuantMode): Its quantization.
    """
    reentrant = checkpointing.CheckpointFunction
    other = checkpointing._checkpoint_without_reentrant_generator

    def apply(function: Callable, *args: Any) -> Any:
        return reentrant.apply(_Alike(function, tracker, mode, ran=False), *args)

    def generator(function: Callable, *args: Any, **kwargs: Any) -> Any:
        # Its first run is not by what is handed in here.
        return other(_Alike(function, tracker, mode, ran=True), *args, **kwargs)

    # Below `checkpoint`, which many modules have imported by name.
    checkpointing.CheckpointFunction = SimpleNamespace(apply=apply)
    checkpointing._checkpoint_without_reentrant_generator = generator
    try:
        yield
    finally:
        checkpointing.CheckpointFunction = reentrant
        checkpointing._checkpoint_without_reentrant_generator = other


class _Alike:
    """A checkpointed function whose later runs have the place and the quantization of the first.

    Args:
        function (Callable): What is run, and run again.
        tracker (SiteTracker): Where the forward is now.
        mode (QuantMode): Its quantization.
        ran (bool): Whether the first run is not by this object.

    Raises:
        BpuError: The function is a module: its call here and in prediction are two sites.
    """

    def __init__(self, function: Callable, tracker: SiteTracker, mode: Any, ran: bool) -> None:
        if isinstance(function, nn.Module):
            raise BpuError(f'{tracker.path or "the detector"} hands a module to activation '
                           'checkpointing, in training alone; that call would not be quantized. '
                           'Set with_cp=False there')
        self.function, self.tracker, self.mode, self.ran = function, tracker, mode, ran
        self.place = tracker.place()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.ran:
            self.ran = True
            return self.function(*args, **kwargs)
        mode, interrupted = self.mode.repeated(), self.tracker.place()
        try:
            with tracking(self.tracker), mode, recomputing_alike(self.tracker, mode):
                self.tracker.go_to(self.place)
                return self.function(*args, **kwargs)
        finally:
            self.tracker.go_to(interrupted)
