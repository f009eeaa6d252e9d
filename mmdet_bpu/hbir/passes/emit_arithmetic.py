"""Integer forms of products, tables, elementwise operations, reductions and sampling."""
import numpy as np
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import attrs_of, site_of
from mmdet_bpu.hbir.passes.conversion import IntType, Product, TableMatch
from mmdet_bpu.hbir.passes.emit import Emitter
from mmdet_bpu.hbir.passes.emit_resize import resize_bilinear
from mmdet_bpu.hbir.reference_feature_maps import whole_windows
from mmdet_bpu.hbir.passes.emit_deformable import deform_conv2d_attrs, sampled_at
from mmdet_bpu.hbir.types import tensor_type, value_type
from mmdet_bpu.program.guard_bits import choose_guard_bits
from mmdet_bpu.program.integer_rules import PADDINGS, sum_fault
from mmdet_bpu.program.kinds import KINDS, with_weights
from mmdet_bpu.program.numerics import quantize_multiplier, quantize_multipliers
from mmdet_bpu.program.sampling_grid import FRACTION_BITS, axis_sampling
from mmdet_bpu.program.table_fit import build_table


_INTEGER_NAMES = {f'hbir.{KINDS[name].hbir}': f'bpu.{KINDS[name].integer}'
                  for name in with_weights()}


def _one(ratio: float) -> dict:
    multiplier, shift = quantize_multiplier(ratio)
    return dict(multiplier=[multiplier], shift=[shift])


def product(e: Emitter, match: Product) -> SSAValue:
    """A product with weights, with residual, relu and one requantization per output channel."""
    op, site = match.op, site_of(match.op)
    accumulator = match.factor.scale * match.weight_scale
    multiplier, shift = quantize_multipliers(accumulator / match.out.scale)
    attrs = dict(multiplier=multiplier, shift=shift, relu=match.relu)
    operands = [
        e.operand(op.operands[0], op),
        e.b.constant(match.weight, match.weight_scale, axis=0, site=site),
        e.b.constant(match.bias, site=site)
    ]
    if match.residual is not None:
        residual = e.type_of(match.residual, op)
        # What the multiplier rounds is taken into account: the residual passes through it too.
        total = np.ldexp(np.asarray(multiplier, np.float64), -np.asarray(shift))
        ratios = quantize_multipliers(residual.scale / match.out.scale / total)
        attrs.update(residual_multiplier=ratios[0], residual_shift=ratios[1])
        operands.append(e.operand(match.residual, op))
    hbir = attrs_of(op)
    if op.name == 'hbir.deform_conv2d':
        operands += sampled_at(e, op)
        attrs.update(deform_conv2d_attrs(e, match))
    elif 'groupNum' in hbir:
        attrs.update(stride=hbir['stride'], pad=hbir['pad'], dilation=hbir['dilation'],
                     groups=hbir['groupNum'])
    return e.b.op(_INTEGER_NAMES[op.name], operands, attrs,
                  e.result_type(op.results[0], match.out), site=site)


def table(e: Emitter, op: Operation, match: TableMatch, out: IntType) -> SSAValue:
    """A chain of unary functions as one lookup."""
    site = site_of(op)
    source = e.type_of(match.root, op)
    try:
        built = build_table(match.evaluate, source.dtype, source.scale, out.dtype, out.scale)
    except BpuError as error:
        raise BpuError(f'{site} ({", ".join(match.functions)}): {error}') from None
    e.conversion.notes.append(
        dict(site=site, rule='find_tables', functions=list(match.functions),
             max_error_lsb=built.max_error,
             text=f'table of {", ".join(match.functions)}: at most {built.max_error:.2f} LSB off'))
    return e.b.op('bpu.table', [e.operand(match.root, op)], built.attrs,
                  e.result_type(op.operands[0], out), site=site)


def _sum(name: str):

    def rule(e: Emitter, op: Operation, out: IntType, relu: bool = False) -> SSAValue:
        types = [e.type_of(v, op) for v in op.operands]
        dtypes = [e.conversion.promotions.get((op, i), t.dtype) for i, t in enumerate(types)]
        ratios = [t.scale / out.scale for t in types]
        try:
            guard = choose_guard_bits(ratios, dtypes)
        except BpuError as error:
            raise BpuError(f'{site_of(op)}: {error}') from None
        sides = [quantize_multiplier(r * 2**guard) for r in ratios]
        attrs = dict(guard_bits=guard, relu=relu)
        for side, (multiplier, shift) in zip(('lhs', 'rhs'), sides):
            attrs[f'{side}_multiplier'], attrs[f'{side}_shift'] = [multiplier], [shift]
        operands = [e.operand(v, op, i) for i, v in enumerate(op.operands)]
        return e.b.op(name, operands, attrs, e.result_type(op.results[0], out), site=site_of(op))

    return rule


def _mul(e: Emitter, op: Operation, out: IntType) -> SSAValue:
    types = [e.type_of(v, op) for v in op.operands]
    operands = [e.operand(v, op, i) for i, v in enumerate(op.operands)]
    return e.b.op('bpu.mul', operands, _one(types[0].scale * types[1].scale / out.scale),
                  e.result_type(op.results[0], out), site=site_of(op))


def _matmul(e: Emitter, op: Operation, out: IntType) -> SSAValue:
    types = [e.type_of(v, op) for v in op.operands]
    operands = [e.operand(v, op) for v in op.operands]
    return e.b.op('bpu.matmul', operands, _one(types[0].scale * types[1].scale / out.scale),
                  e.result_type(op.results[0], out), site=site_of(op))


def _reduce(mean: bool):

    def rule(e: Emitter, op: Operation, out: IntType) -> SSAValue:
        attrs = attrs_of(op)
        source = e.type_of(op.operands[0], op)
        shape = value_type(op.operands[0]).shape
        count = int(np.prod([shape[d] for d in attrs['dims']]))
        fault = sum_fault(count, source.dtype)
        if fault:
            raise BpuError(f'{site_of(op)}: {fault}')
        ratio = source.scale / out.scale / (count if mean else 1)
        return e.b.op('bpu.reduce_sum', [e.operand(op.operands[0], op)],
                      dict(dims=attrs['dims'], **_one(ratio)),
                      e.result_type(op.results[0], out), site=site_of(op))

    return rule


def _avg_pool(e: Emitter, op: Operation, out: IntType) -> SSAValue:
    attrs, source = attrs_of(op), e.type_of(op.operands[0], op)
    try:
        whole_windows(attrs)
    except BpuError as error:
        raise BpuError(f'{site_of(op)}: {error}') from None
    ratio = source.scale / out.scale / (attrs['kernel'][0] * attrs['kernel'][1])
    plain = dict(kernel=attrs['kernel'], stride=attrs['stride'], **_one(ratio))
    return e.b.op('bpu.avg_pool', [e.operand(op.operands[0], op)], plain,
                  e.result_type(op.results[0], out), site=site_of(op))


def _grid_sample(e: Emitter, op: Operation, out: IntType) -> SSAValue:
    site, attrs = site_of(op), attrs_of(op)
    image, grid = (e.type_of(v, op) for v in op.operands)
    if (image.dtype, grid.dtype) != ('si8', 'si16'):
        raise BpuError(f'{site}: grid_sample takes an int8 image and an int16 grid, found '
                       f'{image.dtype} and {grid.dtype}; change the qconfig rule of the '
                       f'{"grid" if image.dtype == "si8" else "image"}')
    operands = [e.operand(v, op) for v in op.operands]
    _, height, width, _ = value_type(op.operands[0]).shape
    x, y = axis_sampling(width, grid.scale), axis_sampling(height, grid.scale)
    if np.float32(image.scale) != np.float32(out.scale):
        raise BpuError(f'{site}: the samples must have the scale of the image')
    plain = dict(x_multiplier=[x.multiplier], x_shift=[x.shift], x_offset=x.offset,
                 y_multiplier=[y.multiplier], y_shift=[y.shift], y_offset=y.offset,
                 fraction_bits=FRACTION_BITS, padding=_padding(attrs))
    shape = value_type(op.results[0]).shape
    type_ = tensor_type(shape, 'si8', value_type(operands[0]).scale)
    return e.b.op('bpu.grid_sample', operands, plain, type_, site=site)


def _padding(attrs: dict) -> str:
    mode = str(attrs['expansionMode'])
    zeros, border = PADDINGS
    return border if border in mode else zeros


ROUNDED = {
    'hbir.add': _sum('bpu.add'),
    'hbir.sub': _sum('bpu.sub'),
    'hbir.mul': _mul,
    'hbir.matmul': _matmul,
    'hbir.reduce_sum': _reduce(False),
    'hbir.reduce_mean': _reduce(True),
    'hbir.avg_pool': _avg_pool,
    'hbir.grid_sample': _grid_sample,
    'hbir.resize2d': resize_bilinear,
}
