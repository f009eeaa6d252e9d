"""Copies of the model that hooks keep, such as the averaged one of ``EMAHook``.

They follow the parameters step by step. What changes outside optimizer steps, the scales and the state
of fake quantizers, reaches them only if it is carried over.
"""
from typing import Iterator

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmdet_bpu.quantization import quantization_of


def copied_quantizations(runner: Runner) -> Iterator[nn.Module]:
    """What :func:`mmdet_bpu.quantization.quantization_of` would give of every copy of the model."""
    yield from _copies(runner, quantization_of(runner.model))


def _copies(runner: Runner, own: nn.Module) -> Iterator[nn.Module]:
    """Modules of the class of ``own`` that hooks hold, but for itself."""
    for hook in runner.hooks:
        for held in vars(hook).values():
            if isinstance(held, nn.Module):
                yield from (module for module in held.modules()
                            if isinstance(module, type(own)) and module is not own)


def copied_models(runner: Runner) -> Iterator[nn.Module]:
    """Every copy of the runner's detector, without wrappers."""
    yield from _copies(runner, _own(runner))


def _own(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def carry_over_quantization(runner: Runner) -> None:
    """Give every copy of the runner's model its scales and the state of its fake quantizers."""
    own = quantization_of(runner.model)
    for twin in copied_quantizations(runner):
        twin.load_state_dict(own.state_dict())
        twin.set_state(own.state)


def carry_over_repairs(runner: Runner) -> None:
    """Give every copy of the runner's model the weights that calibration has repaired."""
    own = _own(runner)
    for twin in copied_models(runner):
        twin.load_state_dict(own.state_dict())
