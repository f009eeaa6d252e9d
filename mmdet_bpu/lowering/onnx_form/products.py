"""ONNX forms of products."""
from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.lowering.onnx_form.rules import writes
from mmdet_bpu.lowering.onnx_form.writer import OnnxWriter
from mmdet_bpu.program.kinds import KINDS


def _window(op: Op, kernel: tuple) -> dict:
    p = op.params
    return dict(kernel_shape=list(kernel), strides=list(p['stride']), pads=list(p['padding']),
                dilations=list(p['dilation']), group=p['groups'])


@writes('conv2d')
def conv2d(w: OnnxWriter, op: Op) -> str:
    weight, shape = w.weight(op)
    return w.node('Conv', [w.operand(op, 0), weight, *w.bias(op)], op.site, **_window(op, shape[2:]))


@writes('conv_transpose2d')
def conv_transpose2d(w: OnnxWriter, op: Op) -> str:
    """Weights lie output channels first, as they are quantized, and are brought to the operator's order."""
    weight, (outputs, inputs, *kernel) = w.weight(op)
    groups, name = op.params['groups'], f'{op.site}/weight'
    parts = w.integers((groups, outputs // groups, inputs, *kernel), f'{name}/parts')
    whole = w.integers((groups * inputs, outputs // groups, *kernel), f'{name}/whole')
    weight = w.node('Reshape', [weight, parts], name)
    weight = w.node('Transpose', [weight], name, perm=[0, 2, 1, 3, 4])
    weight = w.node('Reshape', [weight, whole], name)
    top, left, bottom, right = op.params['padding']
    window = dict(_window(op, kernel), pads=[top, left, top, left],
                  output_padding=[top - bottom, left - right])
    return w.node('ConvTranspose', [w.operand(op, 0), weight, *w.bias(op)], op.site, **window)


@writes('deform_conv2d')
def deform_conv2d(w: OnnxWriter, op: Op) -> str:
    weight, shape = w.weight(op)
    inputs = [w.operand(op, 0), weight, w.operand(op, 3), *w.bias(op)]
    if len(op.inputs) > 4:
        inputs.append(w.operand(op, 4))
    return w.node('DeformConv', inputs, op.site, offset_group=op.params['offset_groups'],
                  **_window(op, shape[2:]))


@writes('linear')
def linear(w: OnnxWriter, op: Op) -> str:
    weight, _ = w.weight(op)
    weight = w.node('Transpose', [weight], f'{op.site}/weight', perm=[1, 0])
    result = w.node(KINDS[op.kind].onnx, [w.operand(op, 0), weight], f'{op.site}/product')
    for bias in w.bias(op, as_float=True):
        result = w.node('Add', [result, bias], op.site)
    return result


@writes('matmul')
def matmul(w: OnnxWriter, op: Op) -> str:
    return w.node('MatMul', [w.operand(op, 0), w.operand(op, 1)], op.site)
