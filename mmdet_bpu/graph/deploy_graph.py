"""From a detector to the graph that is deployed: its family's outputs, stacks resolved."""
from typing import Tuple

import torch
from torch import nn

from mmdet_bpu.models.deformable_attention import open_deformable_attention
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.detector_path import device_of, input_channels
from mmdet_bpu.families.output_tree import leaves
from mmdet_bpu.models.deformable_convolution import open_deformable_convolution
from mmdet_bpu.models.multihead_attention import open_multihead_attention
from mmdet_bpu.models.plain_norms import open_norms
from mmdet_bpu.graph.canonical import build_opgraph
from mmdet_bpu.graph.capture import CapturedGraph, capture
from mmdet_bpu.graph.decompositions import DECOMPOSITIONS
from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.graph.selected_layers import select_early


def open_attention(model: nn.Module) -> None:
    """Turn attention and deformable convolutions into modules that a tracer sees; weights stay.

    Prediction is made to take the same calls as training (:meth:`Family.open`).
    """
    open_deformable_attention(model)
    open_multihead_attention(model)
    open_deformable_convolution(model)
    open_norms(model)
    FAMILIES.of(model).open(model)


def resolve_stacks(graph: OpGraph) -> None:
    """``stack(xs)[i]`` is ``xs[i]``: layers that are stacked only to be taken apart."""
    producers = graph.producers()
    for op in list(graph.ops):
        if op.kind != 'reshape':
            continue
        part = producers.get(op.inputs[0])
        if part is None or part.kind != 'slice':
            continue
        stack = producers.get(part.inputs[0])
        dim, begin = part.params['dim'], part.params['begin']
        if stack is None or stack.kind != 'stack' or dim != stack.params['dim'] \
                or part.params['end'] != begin + 1:
            continue
        if graph.values[stack.inputs[begin]].shape == graph.values[op.output].shape:
            graph.replace_value(op.output, stack.inputs[begin])


def _pads_pixels(pad: Op) -> bool:
    """Whether height and width alone of (N, C, H, W) are padded."""
    begin, end = pad.params['begin'], pad.params['end']
    return len(begin) == 4 and not any((*begin[:2], *end[:2]))


def merge_pads(graph: OpGraph) -> None:
    """Zeros padded in front of convolutions alone are their padding."""
    users = graph.users()
    for op in graph.ops:
        if op.kind != 'pad' or op.params['fill'] or not _pads_pixels(op):
            continue
        others = [u for u in users[op.output] if u.kind != 'conv2d' or op.output in u.inputs[1:]]
        if others or op.output in graph.outputs:
            continue
        for conv in users[op.output]:
            # The call's argument is the padded tensor: zeros are zeros on any grid.
            conv.inputs[0] = op.inputs[0]
            border = [*op.params['begin'][2:], *op.params['end'][2:]]
            conv.params['padding'] = [a + b for a, b in zip(conv.params['padding'], border)]


def name_origins(model: nn.Module, captured: CapturedGraph) -> None:
    """Note which constants are parameters or buffers of ``model``, under ``meta['origin']``."""

    def place(tensor: torch.Tensor) -> tuple:
        return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype

    owned = {place(t): name for name, t in (*model.named_buffers(), *model.named_parameters())
             if t.numel()}
    for node in captured.graph.nodes:
        if node.op == 'get_attr':
            node.meta['origin'] = owned.get(place(captured.constants[node.target]), '')


def capture_detector(model: nn.Module, input_shape: Tuple[int, int]) -> CapturedGraph:
    """Capture ``model`` for one image of (height, width) px, softmax and norms written out.

    Batch norms stay calls of their own. The attention modules must be open
    (:func:`open_attention`).
    """
    image = torch.zeros(1, input_channels(model), *input_shape, device=device_of(model))
    return capture(model, image, DECOMPOSITIONS)


def deployed_part(model: nn.Module, captured: CapturedGraph) -> OpGraph:
    """What of a captured detector is deployed, as an operation graph."""
    name_origins(model, captured)
    graph = build_opgraph(captured)
    graph.output_tree = captured.output_tree
    graph.output_names = leaves(captured.output_tree)
    select_early(graph)
    resolve_stacks(graph)
    graph.prune()
    merge_pads(graph)
    graph.prune()
    return graph


def deploy_graph(model: nn.Module, input_shape: Tuple[int, int]) -> Tuple[CapturedGraph, OpGraph]:
    """:func:`capture_detector` and :func:`deployed_part` in one."""
    captured = capture_detector(model, input_shape)
    return captured, deployed_part(model, captured)
