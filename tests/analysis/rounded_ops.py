"""One rounding of integers ``x``, converted, with the numbers that its bound is derived from."""
from fractions import Fraction

import numpy as np
import torch

from mmdet_bpu.analysis.op_bounds import contract_bound
from mmdet_bpu.analysis.qat_vs_int import is_rounding
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.builder import OpBuilder, operations
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import conversion_of
from mmdet_bpu.hbir.types import tensor_type
from mmdet_bpu.program.dtypes import integer_range

SITE = 'here'


def float32(value):
    """As scales are kept."""
    return float(np.float32(value))


class Rounded:
    """Builds ``y = fake_quant(op(x))``.

    Args:
        shape (tuple): Of ``x``.
        bits (int): Of ``x``.
        scale (float): Of ``x``.
    """

    def __init__(self, shape, bits, scale):
        self.b = OpBuilder([('x', tensor_type(shape, 'f32'))])
        self.shape, self.bits, self.scale = shape, bits, float32(scale)
        self.x = self.b.fake_quant(self.b.inputs[0], bits, self.scale, site='image')

    def op(self, name, operands, attrs, shape):
        return self.b.op(name, operands, attrs, tensor_type(shape, 'f32'), site=SITE)

    def constant(self, array, bits, scale, axis=None):
        """A constant with a fake quantizer."""
        return self.b.fake_quant(self.b.constant(np.float32(array)), bits, scale, axis=axis)

    def row(self, index, factor=1.0):
        """A row of ``x``, counted in another scale."""
        begin, shape = [index, 0], (1, self.shape[1])
        part = self.op('hbir.slice', [self.x], dict(begin=begin, end=[index + 1, self.shape[1]],
                                                    step=[1, 1]), shape)
        number = self.b.constant(np.full(1, factor, np.float32))
        return self.op('hbir.mul', [part, number], {}, shape)

    def finish(self, value, bits, scale):
        self.out_bits, self.out_scale = bits, float32(scale)
        self.module = self.b.finish([('y', self.b.fake_quant(value, bits, scale, site=SITE))])
        self.conversion = conversion_of(self.module)
        self.value = [op for op in operations(self.module) if is_rounding(op)][-1].results[0]
        self.bound = contract_bound(self.conversion, self.value)
        return self

    def run(self, integers):
        """Integers of ``y``, as Python's, in numpy's array of objects."""
        executable = Interpreter(program_from_module(self.conversion.result))
        kept = torch.from_numpy(np.asarray(integers).astype(f'int{self.bits}'))
        return executable.run({'x': kept})['y'].numpy().astype(object)

    def random_integers(self, seed):
        """Over the whole range, the ends among them."""
        low, high = integer_range(f'si{self.bits}')
        found = np.random.default_rng(seed).integers(low, high + 1, self.shape)
        found.flat[:2] = low, high
        return found

    def in_lsb(self, real):
        """Exact values in LSB of ``y``, cut to its range."""
        low, high = integer_range(f'si{self.out_bits}')
        scale = Fraction(self.out_scale)
        return np.vectorize(lambda r: min(max(r / scale, Fraction(low)), Fraction(high)),
                            otypes=[object])(real)

    def reals(self, integers):
        """What integers of ``x`` stand for, as fractions."""
        scale = Fraction(self.scale)
        return np.vectorize(lambda q: int(q) * scale, otypes=[object])(integers)

    def error(self, integers, real):
        """Distance of the integers of ``y`` to exact values, and what the contract allows."""
        exact = self.in_lsb(real)
        distance = np.abs(self.run(integers).reshape(exact.shape) - exact)
        return distance, Fraction(1, 2) + self.bound.relative * np.abs(exact) + self.bound.absolute
