"""A chain of elementwise functions of one value is one lookup."""
import numpy as np
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder, operations
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.types import tensor_type

X = tensor_type((64, 32), 'f32')


class Chain:
    """Functions of one rounded value ``x``."""

    def __init__(self, bits, scale):
        self.b = OpBuilder([('x', X)])
        self.x = self.b.fake_quant(self.b.inputs[0], bits, scale)

    def __call__(self, name, *operands, **attrs):
        operands = [self.b.constant(np.array([o], np.float32)) if isinstance(o, float) else o
                    for o in operands]
        return self.b.op(f'hbir.{name}', operands, attrs, X, site='head/chain')

    def finish(self, value, bits, scale):
        return self.b.finish([('y', self.b.fake_quant(value, bits, scale, site='head/chain'))])


def kinds(module):
    return [op.name for op in operations(convert(module)[0])]


def inverse_sigmoid(chain):
    clamped = chain('clip', chain.x, min=0.0, max=1.0)
    low = chain('clip', clamped, min=1e-5, max=3e38)
    high = chain('clip', chain('sub', 1.0, clamped), min=1e-5, max=3e38)
    return chain('log', chain('div', low, high))


@pytest.mark.parametrize('bits', [8, 16])
def test_the_whole_inverse_sigmoid_is_one_table(bits, largest_lsb):
    chain = Chain(bits, 1.2 / 2**(bits - 1))
    module = chain.finish(inverse_sigmoid(chain), bits, 12 / 2**(bits - 1))
    assert kinds(module) == ['bpu.table']
    note, = convert(module)[1]
    assert note['site'] == 'head/chain' and note['max_error_lsb'] <= 1
    assert note['functions'] == ['clip', 'clip', 'clip', 'div', 'log', 'sub']
    assert largest_lsb(module) <= 1


@pytest.mark.parametrize('bits', [8, 16])
def test_x_times_sigmoid_of_x_is_one_table(bits, largest_lsb):
    chain = Chain(bits, 8 / 2**(bits - 1))
    module = chain.finish(chain('mul', chain.x, chain('sigmoid', chain.x)), bits,
                          8 / 2**(bits - 1))
    assert kinds(module) == ['bpu.table']
    assert largest_lsb(module) <= 1


@pytest.mark.parametrize('copy', [
    lambda chain: chain('mul', chain.x, 0.5), lambda chain: chain('relu', chain.x)],
    ids=['scaled', 'cut'])
def test_a_copy_of_x_that_needs_no_rounding_is_no_second_value(copy, largest_lsb):
    chain = Chain(8, 4 / 128)
    module = chain.finish(chain('mul', chain.x, chain('exp', copy(chain))), 8, 30 / 128)
    assert kinds(module) == ['bpu.table']
    assert largest_lsb(module) <= 1


def test_a_cut_copy_that_others_read_stays(largest_lsb):
    chain = Chain(8, 4 / 128)
    cut = chain('relu', chain.x)
    value = chain.b.fake_quant(chain('mul', chain.x, chain('exp', cut)), 8, 200 / 128)
    module = chain.finish(chain('add', value, cut), 8, 200 / 128)
    assert kinds(module) == ['bpu.relu', 'bpu.table', 'bpu.add']
    assert largest_lsb(module) <= 1


def test_a_square_stays_a_multiplication(largest_lsb):
    chain = Chain(16, 1 / 2**15)
    module = chain.finish(chain('mul', chain.x, chain.x), 16, 1 / 2**15)
    assert kinds(module) == ['bpu.mul']
    assert largest_lsb(module) <= 1


def test_a_chain_ends_where_something_else_is_rounded(largest_lsb):
    chain = Chain(8, 8 / 128)
    middle = chain.b.fake_quant(chain('sigmoid', chain.x), 8, 1 / 128)
    module = chain.finish(chain('exp', middle), 8, 3 / 128)
    assert kinds(module) == ['bpu.table', 'bpu.table']
    assert largest_lsb(module) <= 1


def test_a_function_of_two_values_is_none():
    chain = Chain(8, 8 / 128)
    other = chain.b.fake_quant(chain('exp', chain.x), 8, 3 / 128)
    module = chain.finish(chain('div', chain.x, other), 8, 1 / 128)
    with pytest.raises(BpuError, match='head/chain: hbir.div of tensors has no integer form'):
        convert(module)


def test_a_function_that_is_not_a_number_is_refused_with_its_site():
    chain = Chain(8, 8 / 128)
    with pytest.raises(BpuError, match=r'head/chain \(mul, reciprocal\): .* not a number at x = 0'):
        convert(chain.finish(chain('mul', chain.x, chain('reciprocal', chain.x)), 8, 1 / 128))
