"""ONNX forms of data movement."""
from typing import List

from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.lowering.onnx_form.rules import writes
from mmdet_bpu.lowering.onnx_form.writer import OnnxWriter

BEFORE_THE_FIRST = -2**63  # where a slice that runs backwards ends, if it takes all


@writes('reshape')
def reshape(w: OnnxWriter, op: Op) -> str:
    return w.node('Reshape', [w.operand(op, 0), w.integers(w.shape(op), f'{op.site}/shape')], op.site)


@writes('permute')
def permute(w: OnnxWriter, op: Op) -> str:
    return w.node('Transpose', [w.operand(op, 0)], op.site, perm=list(op.params['dims']))


def _slice(w: OnnxWriter, x: str, site: str, begin: List[int], end: List[int], axes: List[int],
           steps: List[int]) -> str:
    bounds = [w.integers(each, f'{site}/bounds') for each in (begin, end, axes, steps)]
    return w.node('Slice', [x, *bounds], site)


@writes('slice')
def slice_(w: OnnxWriter, op: Op) -> str:
    p = op.params
    return _slice(w, w.operand(op, 0), op.site, [p['begin']], [p['end']], [p['dim']], [p['step']])


@writes('flip')
def flip(w: OnnxWriter, op: Op) -> str:
    dims = list(op.params['dims'])
    count = len(dims)
    return _slice(w, w.operand(op, 0), op.site, [-1] * count, [BEFORE_THE_FIRST] * count, dims,
                  [-1] * count)


@writes('roll')
def roll(w: OnnxWriter, op: Op) -> str:
    """Along each dimension the last elements before the others."""
    x, shape = w.operand(op, 0), w.shape(op)
    for shift, dim in zip(op.params['shifts'], op.params['dims']):
        cut = -shift % shape[dim]
        parts = [_slice(w, x, op.site, [begin], [end], [dim], [1])
                 for begin, end in ((cut, shape[dim]), (0, cut)) if begin < end]
        x = w.node('Concat', parts, op.site, axis=dim)
    return x


@writes('pad')
def pad(w: OnnxWriter, op: Op) -> str:
    sides = w.integers([*op.params['begin'], *op.params['end']], f'{op.site}/sides')
    return w.node('Pad', [w.operand(op, 0), sides, w.number(w.fill(op), f'{op.site}/fill')], op.site)


@writes('expand')
def expand(w: OnnxWriter, op: Op) -> str:
    return w.node('Expand', [w.operand(op, 0), w.integers(w.shape(op), f'{op.site}/shape')], op.site)


@writes('tile')
def tile(w: OnnxWriter, op: Op) -> str:
    before = w.graph.values[op.inputs[0]].shape
    times = [after // size for after, size in zip(w.shape(op), before)]
    return w.node('Tile', [w.operand(op, 0), w.integers(times, f'{op.site}/times')], op.site)


@writes('concat')
def concat(w: OnnxWriter, op: Op) -> str:
    parts = [w.operand(op, index) for index in range(len(op.inputs))]
    return w.node('Concat', parts, op.site, axis=op.params['dim'])


@writes('stack')
def stack(w: OnnxWriter, op: Op) -> str:
    dim = w.integers([op.params['dim']], f'{op.site}/dim')
    parts = [w.node('Unsqueeze', [w.operand(op, index), dim], op.site)
             for index in range(len(op.inputs))]
    return w.node('Concat', parts, op.site, axis=op.params['dim'])


@writes('gather')
def gather(w: OnnxWriter, op: Op) -> str:
    return w.node('GatherElements', [w.operand(op, 0), w.operand(op, 1)], op.site,
                  axis=op.params['dim'])
