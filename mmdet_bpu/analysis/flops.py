"""Multiply-accumulates of a detector, counted on the graph that is deployed.

Counted are convolutions, also transposed ones, ``linear`` and ``matmul``: the operations that a
BPU's array runs and the ones that published GOPs mean, with

    FLOPs = 2 x MAC

Bilinear sampling (``grid_sample``, 4 MAC per sampled element) is counted apart. Element-wise work,
reductions, norms and bias additions are not counted.

The deployed graph has the head of the last decoder layer only; the auxiliary heads are in
``whole_macs``. What does not depend on the image is a constant in both: positional encodings and,
in plain Deformable DETR, the decoder's first self-attention.

mmengine's counter calls a MAC one FLOP. It adds sampling (4 per element), group and layer norms
(5), batch norms (2) and the constants, so it is above ``comparable_macs`` by what those norms and
constants are of the whole. For the plain stock model: 0.5 % at 800 x 1333 px (207.02 against
206.01 GMAC, of which 203.57 are deployed products), 1.1 % at 320 x 320 px.
"""
from collections import defaultdict
from dataclasses import dataclass, field
from math import prod
from typing import Dict, List, Tuple

import torch
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.canonical import build_opgraph
from mmdet_bpu.graph.deploy_graph import deploy_graph, open_attention
from mmdet_bpu.quantization.fold import fold_batch_norms
from mmdet_bpu.graph.opgraph import Op, OpGraph

COUNTED = ('conv2d', 'conv_transpose2d', 'linear', 'matmul')
SAMPLING = 'grid_sample'
CORNERS = 4  # of a bilinear sample, one MAC each
SMALLEST_SIDE = 32  # px: the coarsest stride of the usual backbones


@dataclass(frozen=True)
class OpCount:
    """One counted operation.

    Attributes:
        site (str): Where in the model.
        path (str): Module path.
        kind (str): One of :data:`COUNTED`, or ``grid_sample``.
        macs (int): Multiply-accumulates of one image.
    """
    site: str
    path: str
    kind: str
    macs: int


@dataclass
class FlopCount:
    """Count of a detector for one image.

    Attributes:
        shape (tuple[int, int]): (height, width) in px.
        ops (list[OpCount]): Counted operations of the deployed graph, in order.
        whole_macs (int): The same kinds in all that mmdet runs, auxiliary heads included.
        parameters (int): Learned numbers of the detector, auxiliary heads included.
    """
    shape: Tuple[int, int]
    ops: List[OpCount] = field(default_factory=list)
    whole_macs: int = 0
    parameters: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the deployed graph without sampling."""
        return sum(op.macs for op in self.ops if op.kind != SAMPLING)

    @property
    def flops(self) -> int:
        """Operations of the deployed graph without sampling: two per MAC."""
        return 2 * self.macs

    @property
    def sampling_macs(self) -> int:
        """Multiply-accumulates of bilinear sampling."""
        return sum(op.macs for op in self.ops if op.kind == SAMPLING)

    @property
    def comparable_macs(self) -> int:
        """What mmengine's counter counts, short of norms and constants."""
        return self.whole_macs + self.sampling_macs

    def by_module(self, depth: int = 2) -> Dict[str, int]:
        """MACs without sampling per module path cut to ``depth`` parts, in graph order."""
        totals: Dict[str, int] = defaultdict(int)
        for op in self.ops:
            if op.kind != SAMPLING:
                totals['.'.join(op.path.split('.')[:depth])] += op.macs
        return dict(totals)

    def by_kind(self) -> Dict[str, int]:
        """MACs per kind of operation, sampling included."""
        totals: Dict[str, int] = defaultdict(int)
        for op in self.ops:
            totals[op.kind] += op.macs
        return dict(totals)

    def as_dict(self) -> dict:
        """Plain form for JSON."""
        return dict(
            shape=list(self.shape), macs=self.macs, flops=self.flops,
            sampling_macs=self.sampling_macs, whole_macs=self.whole_macs,
            comparable_macs=self.comparable_macs, parameters=self.parameters, by_kind=self.by_kind(), by_module=self.by_module(),
            ops=[vars(op) for op in self.ops])


def macs_of(op: Op, graph: OpGraph) -> int:
    """Multiply-accumulates of one operation; 0 for the kinds that are not counted."""
    out = prod(graph.values[op.output].shape)
    if op.kind == 'conv2d':
        return out * prod(graph.values[op.inputs[1]].shape[1:])
    if op.kind == 'conv_transpose2d':  # every pixel meets every weight of its group once
        weight = graph.values[op.inputs[1]].shape
        return prod(graph.values[op.inputs[0]].shape) * prod(weight[1:])
    if op.kind in ('linear', 'matmul'):
        return out * graph.values[op.inputs[0]].shape[-1]
    return out * CORNERS if op.kind == SAMPLING else 0


@torch.no_grad()
def count_model(model: nn.Module, shape: Tuple[int, int]) -> FlopCount:
    """Count a float detector for one image of (height, width) px.

    Args:
        model (nn.Module): A stock detector; its attention is opened and its batch norms are folded,
            in place.
        shape (tuple[int, int]): Input shape in px.

    Raises:
        BpuError: The shape is too small, or the model holds an op that is not known (site named).
    """
    if min(shape) < SMALLEST_SIDE:
        raise BpuError(f'--shape {shape[0]} {shape[1]}: expected at least {SMALLEST_SIDE} px')
    parameters = sum(p.numel() for p in model.parameters())
    open_attention(model)
    fold_batch_norms(model, shape)
    captured, deployed = deploy_graph(model, shape)
    whole = build_opgraph(captured)
    ops = [OpCount(op.site, op.path, op.kind, macs_of(op, deployed)) for op in deployed.ops
           if op.kind in (*COUNTED, SAMPLING)]
    whole_macs = sum(macs_of(op, whole) for op in whole.ops if op.kind in COUNTED)
    return FlopCount(tuple(shape), ops, whole_macs, parameters)
