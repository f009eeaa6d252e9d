"""The contract's bound of each op: kept in exact rationals, and no larger than it must be."""
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch

from mmdet_bpu.analysis.contract_bounds import BOUNDS, relative
from mmdet_bpu.analysis.qat_vs_int import compare_qat_int, defects
from mmdet_bpu.hbir.builder import attrs_of
from mmdet_bpu.kernels import registry as kernels
from mmdet_bpu.kernels.kernel_set import Kernel
from mmdet_bpu.program.kinds import KINDS, REQUANTIZE, TABLE, Group
from mmdet_bpu.program.numerics import quantize_multiplier
from tests.analysis.rounded_ops import Rounded, float32

COLUMNS = 6
WIDTHS = [(8, 8), (8, 16), (16, 8), (16, 16)]


def scales(seed, count):
    return [float32(s) for s in np.random.default_rng(seed + 100).uniform(0.5, 2, count)]


def pair(name, function):
    """Two rows of different scales, element by element."""

    def build(bits, out_bits, s):
        g = Rounded((2, COLUMNS), bits, s[0] * 2.0**(1 - bits))
        value = g.op(name, [g.row(0, s[1]), g.row(1, s[2])], {}, (1, COLUMNS))
        g.finish(value, out_bits, 2 * s[3] * 2.0**(1 - out_bits))
        return g, lambda x: function(x[0] * Fraction(s[1]), x[1] * Fraction(s[2]))

    return build


def with_itself(bits, out_bits, s):
    """A difference of two rows of one scale, as a softmax takes from its largest."""
    g = Rounded((2, COLUMNS), bits, s[0] * 2.0**(1 - bits))
    value = g.op('hbir.sub', [g.row(0, s[1]), g.row(1, s[1])], {}, (1, COLUMNS))
    return g.finish(value, out_bits, 2 * s[3] * 2.0**(1 - out_bits)), \
        lambda x: (x[0] - x[1]) * Fraction(s[1])


def constant_sum(bits, out_bits, s):
    g = Rounded((2, COLUMNS), bits, s[0] * 2.0**(1 - bits))
    offset, step = np.linspace(-1, 1, COLUMNS), float32(s[1] * 2.0**(1 - bits))
    value = g.op('hbir.add', [g.x, g.constant(offset, bits, step)], {}, (2, COLUMNS))
    kept = np.array([Fraction(step) * int(q) for q in np.rint(np.float32(offset)
                                                              / np.float32(step)).clip(
        -2**(bits - 1), 2**(bits - 1) - 1)])
    return g.finish(value, out_bits, 2 * s[3] * 2.0**(1 - out_bits)), lambda x: x + kept


def reduced(name, count):

    def build(bits, out_bits, s):
        g = Rounded((2, COLUMNS), bits, s[0] * 2.0**(1 - bits))
        value = g.op(name, [g.x], dict(dims=[1], keepDim=True), (2, 1))
        g.finish(value, out_bits, 6 / count * s[1] * 2.0**(1 - out_bits))
        return g, lambda x: x.sum(1, keepdims=True) / count

    return build


def pooled(bits, out_bits, s):
    g = Rounded((1, 4, 6, 2), bits, s[0] * 2.0**(1 - bits))
    attrs = dict(kernel=[2, 3], stride=[2, 3], pad=[0] * 4, dilation=[1, 1], ceilMode=False)
    g.finish(g.op('hbir.avg_pool', [g.x], attrs, (1, 2, 2, 2)), out_bits,
             s[1] * 2.0**(1 - out_bits))
    return g, lambda x: x.reshape(1, 2, 2, 2, 3, 2).sum((2, 4)) / 6


def multiplied(bits, out_bits, s):
    g = Rounded((3, 3), 8, s[0] / 128)
    value = g.op('hbir.matmul', [g.x, g.op('hbir.transpose', [g.x], dict(dims=[1, 0]), (3, 3))],
                 {}, (3, 3))
    return g.finish(value, out_bits, 3 * s[1] * 2.0**(1 - out_bits)), lambda x: x @ x.T


def rescaled(bits, out_bits, s):
    g = Rounded((2, COLUMNS), bits, s[0] * 2.0**(1 - bits))
    return g.finish(g.row(1, s[1]), out_bits, s[2] * 2.0**(1 - out_bits)), \
        lambda x: x[1] * Fraction(s[1])


def reciprocal(bits, out_bits, s):
    """A table of a rational function."""
    g = Rounded((40, COLUMNS), bits, s[0] * 2.0**(1 - bits))
    three = g.b.constant(np.full(1, 3.0, np.float32))
    value = g.op('hbir.reciprocal', [g.op('hbir.add', [g.x, three], {}, g.shape)], {}, g.shape)
    return g.finish(value, out_bits, s[1] * 2.0**(1 - out_bits)), lambda x: 1 / (x + 3)


def layer(residual, relu, terms=COLUMNS):
    """A linear layer of two channels, with bias."""

    def build(bits, out_bits, s):
        bits = 8 if residual == 16 else bits
        g = Rounded((3, terms), bits, s[0] * 2.0**(1 - bits))
        weight = np.random.default_rng(int(1e6 * s[1])).uniform(-1, 1, (2, terms))
        bias, step = np.float32([s[2] / 3, -s[3] / 7]), np.float32([s[1] / 100, s[2] / 100])
        value = g.op('hbir.linear', [g.x, g.constant(weight, 8, step, axis=0), g.b.constant(bias)],
                     {}, (3, 2))
        kept = np.rint(np.float32(weight) / step[:, None]).clip(-128, 127).astype(int)
        exact = np.array([[Fraction(float(step[c])) * int(q) for q in row]
                          for c, row in enumerate(kept)])
        offset = np.array([Fraction(float(v)) for v in bias])
        if residual:
            cut = g.op('hbir.slice', [g.x], dict(begin=[0, 0], end=[3, 2], step=[1, 1]), (3, 2))
            value = g.op('hbir.add', [value, cut], {}, (3, 2))
        if relu:
            value = g.op('hbir.relu', [value], {}, (3, 2))
        g.finish(value, out_bits, 3 * s[3] * 2.0**(1 - out_bits))

        def real(x):
            y = x @ exact.T + offset + (x[:, :2] if residual else 0)
            return np.maximum(y, 0) if relu else y

        return g, real

    return build


def weights_of(position, size):
    """Bilinear weights of pixels along an axis, in fractions; 0 outside."""
    below = floor(position)
    pairs = ((below, 1 - (position - below)), (below + 1, position - below))
    return [(pixel, weight) for pixel, weight in pairs if 0 <= pixel < size]


def interpolated(x, y_position, x_position):
    """One sample of an image (H, W) of fractions."""
    return sum((wy * wx * x[i, j] for i, wy in weights_of(y_position, x.shape[0])
                for j, wx in weights_of(x_position, x.shape[1])), Fraction(0))


def sampled(bits, out_bits, s):
    g, step = Rounded((1, 5, 7, 1), 8, s[0]), float32(1.3 / 2**15 * s[1])
    points = np.random.default_rng(int(1e6 * s[2])).uniform(-1.2, 1.2, (4, 3, 2))
    attrs = dict(mode='bilinear', expansionMode='constant', padValue=0.0, alignCorner=False)
    grid = g.constant(points[None], 16, step)
    g.finish(g.op('hbir.grid_sample', [g.x, grid], attrs, (1, 4, 3, 1)), 8, s[0])
    kept = np.rint(np.float32(points) / np.float32(step)).clip(-2**15, 2**15 - 1).astype(int)

    def real(image):
        positions = [[(((int(q) * Fraction(step) + 1) * size - 1) / 2)
                      for q, size in zip(point, (7, 5))] for point in kept.reshape(-1, 2)]
        return np.array([interpolated(image[0, :, :, 0], y, x) for x, y in positions])

    return g, real


def resized(bits, out_bits, s):
    g = Rounded((1, 4, 5, 1), 8, s[0])
    offset, step = [float32(-0.3 * s[1]), float32(0.1 * s[2])], [float32(0.4 * s[3]), 0.7]
    attrs = dict(mode='bilinear', expansionMode='border', size=[6, 7], initialOffset=offset,
                 step=step, ratio=[1.0, 1.0])
    g.finish(g.op('hbir.resize2d', [g.x], attrs, (1, 6, 7, 1)), 8, s[0])

    def real(image):
        places = [[min(max(Fraction(o) + k * Fraction(d), 0), size - 1) for k in range(count)]
                  for o, d, count, size in zip(offset, step, (6, 7), (4, 5))]
        return np.array([[interpolated(image[0, :, :, 0], y, x) for x in places[1]]
                         for y in places[0]])

    return g, real


CASES = {
    'add': pair('hbir.add', lambda a, b: a + b),
    'sub': pair('hbir.sub', lambda a, b: a - b),
    'mul': pair('hbir.mul', lambda a, b: a * b),
    'sub of one scale': with_itself,
    'add of a constant': constant_sum,
    'reduce_sum': reduced('hbir.reduce_sum', 1),
    'reduce_mean': reduced('hbir.reduce_mean', COLUMNS),
    'avg_pool': pooled,
    'matmul': multiplied,
    'requantize': rescaled,
    'table': reciprocal,
    'linear': layer(residual=False, relu=False),
    'linear with relu': layer(residual=False, relu=True),
    'linear with a residual': layer(residual=True, relu=False),
    'linear of one term': layer(residual=False, relu=False, terms=2),
    'grid_sample': sampled,
    'resize': resized,
}


@pytest.mark.parametrize('bits, out_bits', WIDTHS)
@pytest.mark.parametrize('name', CASES)
def test_integers_are_as_near_to_the_exact_value_as_the_contract_says(name, bits, out_bits):
    for seed in range(4):
        g, real = CASES[name](bits, out_bits, scales(seed, 4))
        integers = g.random_integers(seed)
        distance, allowed = g.error(integers, real(g.reals(integers)))
        assert (distance <= allowed).all(), (seed, float((distance - allowed).max()))
        if out_bits == 8 and name not in ('grid_sample', 'resize', 'linear of one term'):
            assert float(allowed.max()) < 0.7, 'an int8 result has room for no second LSB'


def test_every_rounding_of_the_dialect_has_a_bound():
    rounding = {row.integer for row in KINDS.values() if row.integer and row.group in (
        Group.REDUCE, Group.SAMPLED) or row.integer and row.group is Group.BINARY
        and row.carries is None} | {'matmul', REQUANTIZE, TABLE}
    assert {name.removeprefix('bpu.') for name in BOUNDS} == rounding


def nearest_is_no_worse(ratio):
    """No other 15-bit multiplier is nearer to a ratio than the one that is taken."""
    multiplier, shift = quantize_multiplier(float(ratio))
    taken = relative(Fraction(multiplier) / Fraction(2)**shift, ratio)
    others = [relative(Fraction(multiplier + step) / Fraction(2)**shift, ratio)
              for step in (-1, 1)]
    return all(taken <= other for other in others)


def test_a_table_is_off_where_all_its_segments_are_used():
    """A sine that turns often within its 64 x 64 entries."""
    g = Rounded((1, COLUMNS), 16, 60 / 2**15)
    g.finish(g.op('hbir.sin', [g.x], {}, g.shape), 16, 2.0**-15)
    note, = [n for n in g.conversion.notes if n['rule'] == 'find_tables']
    assert len(attrs_of(g.conversion.emitted[g.value].owner)['segment_start']) == 64
    assert note['max_error_lsb'] > 0.5
    assert float(g.bound.absolute) == pytest.approx(note['max_error_lsb'] - 0.5)


ABOVE, BELOW = 1 + 2.0**-15, 1 + 3 * 2.0**-15
"""Ratios halfway between two 15-bit multipliers: one is rounded down, the other one up."""


def sum_in_int16(count=400):
    """``a + b`` where a's multiplier is 2**-15 too small, b's too large, and they cancel."""
    g = Rounded((2, count), 16, 2.0**-15)
    g.finish(g.op('hbir.add', [g.row(0, ABOVE), g.row(1, BELOW)], {}, (1, count)), 16, 2.0**-15)
    integers = np.stack([32767 - np.arange(count), -32700 + 3 * np.arange(count)])
    return g, integers, lambda x: x[0] * Fraction(ABOVE) + x[1] * Fraction(BELOW)


def layer_with_residual_in_int16():
    """One term, whose multiplier is 2**-15 off, cancels against the residual."""
    g, count = Rounded((400, 1), 16, 2.0**-15), 400
    weight = g.constant(np.full((1, 1), -1.0), 8, np.full(1, ABOVE), axis=0)
    value = g.op('hbir.linear', [g.x, weight, g.b.constant(np.zeros(1, np.float32))], {},
                 (count, 1))
    number = g.b.constant(np.full(1, BELOW, np.float32))
    value = g.op('hbir.add', [value, g.op('hbir.mul', [g.x, number], {}, (count, 1))], {},
                 (count, 1))
    g.finish(value, 16, 2.0**-15)
    integers = (32767 - 80 * np.arange(count))[:, None]
    return g, integers, lambda x: x * (Fraction(BELOW) - Fraction(ABOVE))


def convolution_of_few_terms():
    """An int16 result of three int8 terms: the bias counts in units coarser than its LSB."""
    g = Rounded((1, 400, 1, 3), 8, 1 / 64)
    weight = g.constant(np.full((1, 1, 1, 3), 1.0), 8, np.full(1, ABOVE), axis=0)
    bias = np.float32([0.49 / 64])
    attrs = dict(stride=[1, 1], pad=[0] * 4, dilation=[1, 1], groupNum=1)
    value = g.op('hbir.conv2d', [g.x, weight, g.b.constant(bias)], attrs, (1, 400, 1, 1))
    g.finish(value, 16, 1 / 192)
    integers = np.random.default_rng(0).integers(-128, 128, g.shape)
    return g, integers, lambda x: x.sum(-1, keepdims=True) * Fraction(ABOVE) \
        + Fraction(float(bias[0]))


INHERENT = {'add': sum_in_int16, 'linear': layer_with_residual_in_int16,
            'conv2d': convolution_of_few_terms}


@pytest.mark.parametrize('kind', INHERENT)
def test_int16_results_that_15_bits_keep_2_lsb_away(kind):
    """Exact rationals: off by 2 from the rounded exact value, and no further than derived."""
    g, integers, real = INHERENT[kind]()
    exact = real(g.reals(integers))
    distance, allowed = g.error(integers, exact)
    rounded = np.vectorize(round, otypes=[object])(g.in_lsb(exact))
    lsb = np.abs(g.run(integers).reshape(rounded.shape) - rounded)
    assert lsb.max() == 2 and (distance <= allowed).all()
    assert 1.5 < float(allowed.max()) < 3.6
    assert nearest_is_no_worse(Fraction(ABOVE)) and nearest_is_no_worse(Fraction(BELOW))


@pytest.mark.parametrize('kind', INHERENT)
def test_the_comparison_knows_the_bound_of_the_op(kind, monkeypatch):
    g, integers, _ = INHERENT[kind]()
    image = torch.from_numpy(integers.astype(f'int{g.bits}'))
    result = compare_qat_int(g.conversion, image)
    row, = [row for row in result['ops'] if row['kind'] == kind]
    assert row['max_lsb'] == 2 <= row['bound_lsb'] <= 4 and row['within_contract']
    assert defects(result) == []
    right = kernels.KERNELS[f'bpu.{kind}']
    wrong = Kernel(f'bpu.{kind}', lambda inputs, attrs: [right(inputs, attrs)[0] + 6])
    monkeypatch.setitem(kernels.KERNELS, f'bpu.{kind}', wrong)
    row, = defects(compare_qat_int(g.conversion, image))
    assert row['kind'] == kind and not row['within_contract']
