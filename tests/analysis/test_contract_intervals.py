"""Composites: what a difference of 1 LSB inside becomes, and where integers may lie at the end."""
from fractions import Fraction

import numpy as np
import pytest
import torch

from mmdet_bpu.analysis.composites import find_composites
from mmdet_bpu.analysis.contract_intervals import contract_interval
from mmdet_bpu.analysis.op_bounds import contract_bound
from mmdet_bpu.analysis.qat_vs_int import compare_qat_int, defects, is_rounding
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import conversion_of
from mmdet_bpu.hbir.types import tensor_type
from mmdet_bpu.kernels import registry as kernels
from mmdet_bpu.kernels.kernel_set import Kernel
from mmdet_bpu.program.numerics import quantize_multiplier

ROWS, KEYS = 64, 40
SCALES = dict(x=14 / 2**15, sub=27 / 2**15, exp=1 / 32767, sum=9.3 / 2**15, reciprocal=1 / 2**15,
              mul=1 / 2**15)
LAYER_SCALES = dict(x=4 / 2**15, mean=1 / 2**15, sub=5 / 2**15, square=25 / 2**15,
                    variance=4 / 2**15, rsqrt=2 / 2**15, mul=4 / 2**15)


class Composite:
    """A written-out call in int16 on ``x`` (ROWS, KEYS)."""

    def __init__(self, name, scales):
        self.name, self.scales, self.values = name, scales, {}
        self.b = OpBuilder([('x', tensor_type((ROWS, KEYS), 'f32'))])
        self.x = self.b.fake_quant(self.b.inputs[0], 16, scales['x'], site='image')

    def rounded(self, label, value):
        self.values[label] = self.b.fake_quant(value, 16, self.scales[label],
                                               site=self.site(label))
        return self.values[label]

    def site(self, label):
        return f'attn/{self.name}.{label}.0'

    def op(self, label, name, operands, columns=KEYS, **attrs):
        return self.b.op(f'hbir.{name}', operands, attrs, tensor_type((ROWS, columns), 'f32'),
                         site=self.site(label))

    def reduced(self, label, name, value):
        return self.op(label, name, [value], 1, dims=[1], keepDim=True)

    def finish(self, value):
        self.conversion = conversion_of(self.b.finish([('y', value)]))
        self.output = value
        return self

    def run(self, integers):
        return Interpreter(program_from_module(self.conversion.result)).run({'x': integers})['y']


def softmax():
    c = Composite('softmax', SCALES)
    shifted = c.rounded('sub', c.op('sub', 'sub', [c.x, c.reduced('amax', 'reduce_max', c.x)]))
    c.exp = c.rounded('exp', c.op('exp', 'exp', [shifted]))
    c.sum = c.rounded('sum', c.reduced('sum', 'reduce_sum', c.exp))
    inverse = c.rounded('reciprocal', c.op('reciprocal', 'reciprocal', [c.sum], 1))
    return c.finish(c.rounded('mul', c.op('mul', 'mul', [c.exp, inverse])))


def layer_norm():
    c = Composite('layer_norm', LAYER_SCALES)
    mean = c.rounded('mean', c.reduced('mean', 'reduce_mean', c.x))
    centred = c.rounded('sub', c.op('sub', 'sub', [c.x, mean]))
    square = c.rounded('square', c.op('square', 'mul', [centred, centred]))
    variance = c.rounded('variance', c.reduced('variance', 'reduce_mean', square))
    epsilon = c.b.constant(np.full(1, 1e-5, np.float32))
    inverse = c.rounded('rsqrt', c.op('rsqrt', 'rsqrt', [
        c.op('rsqrt', 'add', [variance, epsilon], 1)], 1))
    return c.finish(c.rounded('mul', c.op('mul', 'mul', [centred, inverse])))


def logits(seed=0, spread=3.0, scale=SCALES['x']):
    values = np.random.default_rng(seed).normal(size=(ROWS, KEYS)) * spread
    return torch.from_numpy(np.clip(np.rint(values / scale), -2**15, 2**15 - 1).astype(np.int16))


def test_a_softmax_of_int16_cannot_be_kept_to_two_lsb():
    """In exact rationals: the contract may lose 1 LSB of a sum, and that is 9 of the result.

    One step of an int16 sum of up to 9.3 is 9.3 / 2**15 of a sum of 1. No 15-bit multiplier is the
    ratio of its scales, so some sums of exponentials are rounded to the neighbour of the integer
    that is nearest to them.
    """
    c = softmax()
    step, out = (Fraction(c.conversion.integers[v].scale) for v in (c.sum, c.output))
    count = round(1 / step)
    apart = (1 / (count * step) - 1 / ((count + 1) * step)) / out
    assert 9 < apart < 10
    ratio = Fraction(c.conversion.integers[c.exp].scale) / step
    multiplier, shift = quantize_multiplier(float(ratio))
    sums = range(32767, 3 * 32767)  # of exponentials of which one is 1
    assert any(round(n * ratio) != round(Fraction(n * multiplier, 2**shift)) for n in sums)
    assert abs(Fraction(multiplier, 2**shift) / ratio - 1) == contract_bound(
        c.conversion, c.sum).relative


@pytest.mark.parametrize('build, scale, spread', [(softmax, SCALES['x'], 3.0),
                                                  (layer_norm, LAYER_SCALES['x'], 1.0)])
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_integers_of_a_composite_lie_where_its_roundings_let_them(build, scale, spread, seed):
    c, x = build(), logits(seed, spread, scale)
    interval = contract_interval(c.conversion, c.output, {c.x: (x, c.scales['x'])})
    found = c.run(x)
    assert ((interval.low <= found) & (found <= interval.high)).all()
    width = interval.high - interval.low
    assert 0 < width.double().mean() < 12 and width.max() < 100


def test_no_choice_of_errors_that_the_contract_lets_leaves_the_interval():
    """Every rounding inside is given another error, as large as its bound, at random."""
    c, x, rng = softmax(), logits(), np.random.default_rng(0)
    interval = contract_interval(c.conversion, c.output, {c.x: (x, c.scales['x'])})
    low, high = (end.numpy() for end in interval)

    bounds = {label: contract_bound(c.conversion, value) for label, value in c.values.items()}

    def rounded(label, real):
        scale = c.conversion.integers[c.values[label]].scale
        exact = torch.from_numpy(np.clip(real / scale, -2**15, 2**15 - 1))
        reach = bounds[label].at(exact).numpy()
        moved = exact.numpy() + reach * rng.choice([-1, 0, 1], real.shape)
        return np.clip(np.rint(moved), -2**15, 2**15 - 1) * scale

    real, widest = x.numpy() * c.conversion.integers[c.x].scale, 0
    for _ in range(200):
        exp = rounded('exp', np.exp(rounded('sub', real - real.max(1, keepdims=True))))
        inverse = rounded('reciprocal', 1 / rounded('sum', exp.sum(1, keepdims=True)))
        found = np.rint(rounded('mul', exp * inverse) / c.conversion.integers[c.output].scale)
        assert ((low <= found) & (found <= high)).all()
        widest = max(widest, np.abs(found - (low + high) / 2).max())
    assert widest > (high - low).max() / 4


def test_a_composite_beyond_two_lsb_is_compared_with_its_interval(monkeypatch):
    c, x = softmax(), torch.cat([logits(seed)[:16] for seed in range(4)])
    result = compare_qat_int(c.conversion, x)
    whole, = result['wholes']
    assert 2 < whole['qat_max_lsb'] <= whole['bound_lsb'] and whole['within_contract']
    assert result['max_lsb'] <= 1 and defects(result) == []
    right = kernels.KERNELS['bpu.reduce_sum']
    wrong = Kernel('bpu.reduce_sum', lambda inputs, attrs: [right(inputs, attrs)[0] + 40])
    monkeypatch.setitem(kernels.KERNELS, 'bpu.reduce_sum', wrong)
    found = defects(compare_qat_int(c.conversion, x))
    assert [row['kind'] for row in found] == ['reduce_sum', 'softmax']


def test_an_operation_without_direction_has_no_interval():
    c = Composite('softmax', dict(SCALES, sin=1 / 2**15))
    value = c.rounded('sin', c.op('sin', 'sin', [c.x]))
    c.finish(value)
    whole, = find_composites(c.conversion.module, is_rounding)
    assert contract_interval(c.conversion, value, {whole.inputs[0]: (logits(), 1.0)}) is None
