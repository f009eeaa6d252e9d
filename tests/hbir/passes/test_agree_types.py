"""Both sides of an elementwise op get the wider storage type."""
import numpy as np
import pytest

from mmdet_bpu.hbir.builder import OpBuilder, operations
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.types import tensor_type, value_type

X = tensor_type((8, 16), 'f32')


def module_of(name, left_bits, right_bits, constant=False):
    """``name(x, x of another width)``, or ``name(x, constant)``, rounded to int16."""
    b = OpBuilder([('x', X)])
    x = b.fake_quant(b.inputs[0], left_bits, 2 / 2**(left_bits - 1))
    if constant:
        right = b.constant(np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 16))
    else:
        right = x
    right = b.fake_quant(right, right_bits, 8 / 2**(right_bits - 1))
    y = b.op(name, [x, right], {}, X, site='here')
    return b.finish([('y', b.fake_quant(y, 16, 16 / 2**15))])


def kinds(module):
    return [op.name for op in operations(convert(module)[0]) if op.name != 'bpu.constant']


@pytest.mark.parametrize('name', ['hbir.add', 'hbir.sub', 'hbir.mul'])
@pytest.mark.parametrize('bits', [(8, 16), (16, 8)])
def test_the_narrow_side_is_widened_exactly(name, bits, largest_lsb):
    module = module_of(name, *bits)
    integer, notes = convert(module)
    kind = name.replace('hbir', 'bpu')
    assert kinds(module) == ['bpu.requantize', 'bpu.requantize', kind]
    op = next(op for op in operations(integer) if op.name == kind)
    assert [value_type(v).dtype for v in op.operands] == ['si16', 'si16']
    note, = [n for n in notes if n['rule'] == 'agree_types']
    assert note['site'] == 'here' and note['text'].endswith('widened to si16')
    assert largest_lsb(module) <= 1


def test_a_constant_is_stored_wider(largest_lsb):
    module = module_of('hbir.add', 16, 8, constant=True)
    assert kinds(module) == ['bpu.add']
    assert largest_lsb(module) <= 1


def test_equal_types_stay(largest_lsb):
    module = module_of('hbir.add', 8, 8)
    assert kinds(module) == ['bpu.requantize', 'bpu.add']
    assert not [n for n in convert(module)[1] if n['rule'] == 'agree_types']
    assert largest_lsb(module) <= 1
