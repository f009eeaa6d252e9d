"""ONNX forms of reductions, pooling, sampling and selection."""
import numpy as np

from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.lowering.onnx_form.rules import writes
from mmdet_bpu.lowering.onnx_form.writer import OnnxWriter
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.program.resize_positions import POSITION_BITS, axis_positions, fixed_point

NEAR = 1e-6  # px, of starts and steps that mean the same


@writes('sum', 'mean', 'amax', 'amin')
def reduction(w: OnnxWriter, op: Op) -> str:
    axes = w.integers(op.params['dims'], f'{op.site}/axes')
    return w.node(KINDS[op.kind].onnx, [w.operand(op, 0), axes], op.site, keepdims=1)


@writes('max_pool2d')
def max_pool2d(w: OnnxWriter, op: Op) -> str:
    p = op.params
    return w.node('MaxPool', [w.operand(op, 0)], op.site, kernel_shape=list(p['kernel']),
                  strides=list(p['stride']), pads=[*p['padding']] * 2,
                  dilations=list(p['dilation']), ceil_mode=int(p['ceil_mode']))


@writes('avg_pool2d')
def avg_pool2d(w: OnnxWriter, op: Op) -> str:
    return w.node('AveragePool', [w.operand(op, 0)], op.site, kernel_shape=list(op.params['kernel']),
                  strides=list(op.params['stride']))


@writes('grid_sample')
def grid_sample(w: OnnxWriter, op: Op) -> str:
    return w.node('GridSample', [w.operand(op, 0), w.operand(op, 1)], op.site, mode='linear',
                  padding_mode=op.params['padding'], align_corners=0)


def _sizes(w: OnnxWriter, op: Op) -> tuple:
    return w.graph.values[op.inputs[0]].shape[2:], w.shape(op)[2:]


@writes('resize_bilinear')
def resize_bilinear(w: OnnxWriter, op: Op) -> str:
    """``Resize`` where one of its rules gives the positions, else samples at them."""
    before, after = _sizes(w, op)
    start, step = op.params['start'], op.params['step']

    def are(starts, steps) -> bool:
        return np.allclose(start, starts, atol=NEAR) and np.allclose(step, steps, atol=NEAR)

    whole = [n / m for n, m in zip(before, after)]
    inner = [(n - 1) / (m - 1) if m > 1 else 0.0 for n, m in zip(before, after)]
    rules = (('half_pixel', [s / 2 - 0.5 for s in whole], whole), ('asymmetric', [0, 0], whole),
             ('align_corners', [0, 0], inner))
    for rule, starts, steps in rules:
        if are(starts, steps):
            sizes = w.integers(w.shape(op), f'{op.site}/sizes')
            return w.node('Resize', [w.operand(op, 0), '', '', sizes], op.site, mode='linear',
                          coordinate_transformation_mode=rule)
    rows, columns = ((np.clip(start[axis] + np.arange(after[axis]) * step[axis], 0, before[axis] - 1)
                      * 2 + 1) / before[axis] - 1 for axis in (0, 1))
    grid = np.stack(np.broadcast_arrays(columns[None, :], rows[:, None]), -1)[None]
    batch = w.shape(op)[0]
    grid = w.constant(np.repeat(grid, batch, 0).astype(np.float32), f'{op.site}/grid')
    return w.node('GridSample', [w.operand(op, 0), grid], op.site, mode='linear',
                  padding_mode='border', align_corners=0)


@writes('resize_nearest')
def resize_nearest(w: OnnxWriter, op: Op) -> str:
    """Rows and columns by their numbers: no rule of rounding has a say."""
    x, (before, after) = w.operand(op, 0), _sizes(w, op)
    for axis in (0, 1):
        start, step = (fixed_point(op.params[name][axis]) for name in ('start', 'step'))
        chosen = axis_positions(start, step, after[axis], POSITION_BITS, 0, before[axis])
        if not np.array_equal(chosen, np.arange(before[axis])):
            numbers = w.constant(chosen, f'{op.site}/pixels')
            x = w.node('Gather', [x, numbers], op.site, axis=axis + 2)
    return x


@writes('topk')
def topk(w: OnnxWriter, op: Op) -> str:
    """One of its two results; the other one has no reader."""
    count = w.integers([op.params['k']], f'{op.site}/k')
    results = w.node('TopK', [w.operand(op, 0), count], op.site, outputs=2, axis=op.params['dim'],
                     largest=1, sorted=1)
    return results[0 if op.params['part'] == 'values' else 1]


@writes('positive', 'not_negative')
def sign(w: OnnxWriter, op: Op) -> str:
    return w.node(KINDS[op.kind].onnx, [w.operand(op, 0), w.number(0.0, f'{op.site}/zero')], op.site)


@writes('where')
def where(w: OnnxWriter, op: Op) -> str:
    """A number where a constant mask is set."""
    fill = w.number(w.fill(op), f'{op.site}/fill')
    return w.node('Where', [w.operand(op, 0), fill, w.operand(op, 1)], op.site)


@writes('select')
def select(w: OnnxWriter, op: Op) -> str:
    return w.node('Where', [w.operand(op, index) for index in range(3)], op.site)
