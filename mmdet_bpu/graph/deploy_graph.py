"""From a detector to the graph that is deployed: last layer's outputs, stacks resolved."""
from typing import Tuple

import torch
from torch import nn

from mmdet_bpu.families.detector_path import device_of, is_stacked_by_layer, output_names
from mmdet_bpu.graph.canonical import build_opgraph
from mmdet_bpu.graph.capture import CapturedGraph, capture
from mmdet_bpu.graph.decompositions import DECOMPOSITIONS
from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.models.deformable_attention import open_deformable_attention
from mmdet_bpu.models.multihead_attention import open_multihead_attention


def open_attention(model: nn.Module) -> None:
    """Turn attention modules into ones whose products a tracer sees; weights stay."""
    open_deformable_attention(model)
    open_multihead_attention(model)


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


def deployed_outputs(graph: OpGraph, stacked: bool) -> None:
    """Keep the last decoder layer of outputs that are stacked by layer."""
    producers = graph.producers()
    if stacked:
        graph.outputs = [
            producers[name].inputs[-1] if producers[name].kind == 'stack' else name
            for name in graph.outputs
        ]
    graph.output_names = list(output_names(len(graph.outputs)))


def deploy_graph(model: nn.Module, input_shape: Tuple[int, int]) -> Tuple[CapturedGraph, OpGraph]:
    """Capture ``model`` for one image of (height, width) px, softmax and norms written out.

    The attention modules must be open (:func:`open_attention`).

    Returns:
        tuple[CapturedGraph, OpGraph]: The whole tensor path, and the deployed part of it.
    """
    image = torch.zeros(1, 3, *input_shape, device=device_of(model))
    captured = capture(model, image, DECOMPOSITIONS)
    graph = build_opgraph(captured)
    deployed_outputs(graph, is_stacked_by_layer(model))
    resolve_stacks(graph)
    graph.prune()
    merge_pads(graph)
    graph.prune()
    return captured, graph
