"""Where the ONNX forms of the kinds of operations register themselves.

    @writes('conv2d')
    def conv2d(w: OnnxWriter, op: Op) -> str: ...
"""
from typing import Callable, Dict

from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.lowering.onnx_form.writer import OnnxWriter
from mmdet_bpu.program.kinds import KINDS

Rule = Callable[[OnnxWriter, Op], str]
"""Appends the nodes of an op; the name of its result's tensor."""

FORMS: Dict[str, Rule] = {}
"""Kind -> its ONNX form."""


def writes(*kinds: str) -> Callable[[Rule], Rule]:
    """Register the form of one or more kinds of :data:`mmdet_bpu.program.kinds.KINDS`."""

    def register(rule: Rule) -> Rule:
        for kind in kinds:
            assert kind in KINDS and kind not in FORMS, kind
            FORMS[kind] = rule
        return rule

    return register
