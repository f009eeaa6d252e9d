"""Operators of ``mmcv._ext`` in PyTorch, for an mmcv without its compiled ones (mmcv-lite).

One file per operator, with the operator's name, holding a function of that name; it takes the
arguments of the compiled one. The stand-in of :mod:`mmdet_bpu.compat` hands them out. This module
imports nothing: the file of an operator, and torch with it, comes when the operator is asked for.
"""
import importlib
from typing import Callable

OPERATORS = ('ms_deform_attn_backward', 'ms_deform_attn_forward', 'nms',
             'sigmoid_focal_loss_backward', 'sigmoid_focal_loss_forward', 'softnms')


def load_operator(name: str) -> Callable:
    """The function of an operator in :data:`OPERATORS`."""
    assert name in OPERATORS, name
    return getattr(importlib.import_module(f'{__name__}.{name}'), name)
