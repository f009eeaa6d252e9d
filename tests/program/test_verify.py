"""A program is checked as a whole: names, types, shapes, attributes, memory and work."""
import dataclasses

import numpy as np
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.budget import MEMORY_BUDGET
from mmdet_bpu.program.operation_rules import RULES
from mmdet_bpu.program.operations import OPERATIONS
from mmdet_bpu.program.program import Instruction, Program, TensorType, Value
from mmdet_bpu.program.verify import verify_program

RATE = dict(multiplier=[20000], shift=[10])


def program(op, shapes, result, attrs, constants=()):
    """One operation on inputs and constants; a tensor is (shape, dtype)."""
    tensors = dict({f'x{index}': tensor for index, tensor in enumerate(shapes)}, y=result)
    values = {name: Value(name, TensorType(tuple(shape), dtype, 0.5))
              for name, (shape, dtype) in tensors.items()}
    names = [name for name in values if name != 'y']
    return Program(values, [name for name in names if name not in constants], ['y'],
                   [Instruction(f'bpu.{op}', names, ['y'], attrs, 'neck/here')])


def check(*arguments, constants=()):
    verify_program(program(*arguments, constants=constants), constants, 0)


def relu(*changes):
    """A relu of a (2, 3), with some fields of its program other."""
    made = program('relu', [((2, 3), 'si8')], ((2, 3), 'si8'), {})
    for change in changes:
        change(made)
    return made


def test_every_operation_has_a_rule():
    assert set(RULES) == set(OPERATIONS) - {'constant'}


def test_a_valid_program_passes():
    verify_program(relu(), [], 0)
    check('linear', [((2, 4), 'si8'), ((6, 4), 'si8'), ((6, ), 'si32')], ((2, 6), 'si8'),
          dict(RATE, relu=True), constants=('x1', 'x2'))
    check('reduce_sum', [((2, 4), 'si8')], ((2, 1), 'si16'),
          dict(dims=np.array([1]), multiplier=np.array([20000]), shift=np.array([9])))


@pytest.mark.parametrize('change, message', [
    (lambda p: p.instructions[0].inputs.append('x0'), 'expected 1 to 1 operands, found 2'),
    (lambda p: p.instructions[0].inputs.clear(), 'expected 1 to 1 operands, found 0'),
    (lambda p: p.instructions[0].inputs.append('ghost'), "no place for 'ghost'"),
    (lambda p: p.instructions[0].outputs.append('x0'), "'x0' is made more than once"),
    (lambda p: p.inputs.append('x0'), "'x0' is made more than once"),
    (lambda p: p.inputs.clear(), "no place for 'x0'"),
    (lambda p: p.outputs.append('y'), 'an output is named twice'),
    (lambda p: p.outputs.append('ghost'), "output 'ghost'"),
    (lambda p: p.instructions.clear(), "no place for the output 'y'"),
    (lambda p: p.values.update(more=p.values['y']), "nothing makes the value 'more'"),
    (lambda p: p.instructions[0].attrs.update(dim=1), "no attribute .*dim"),
    (lambda p: setattr(p.instructions[0], 'op', 'bpu.magic'), "no integer kernel for 'bpu.magic'"),
    (lambda p: setattr(p.instructions[0], 'op', 'relu'), "no integer kernel for 'relu'"),
    (lambda p: setattr(p.instructions[0], 'op', 'bpu.constant'), 'no integer kernel'),
])
def test_names_and_counts_are_checked(change, message):
    with pytest.raises(BpuError, match=message):
        verify_program(relu(change), [], 0)


@pytest.mark.parametrize('kind, message', [
    (dict(dtype='f32'), "found 'f32'"), (dict(scale=float('inf')), 'found inf'),
    (dict(scale=-0.5), 'found -0.5'), (dict(shape=(2, 0)), 'sizes of 1 or more'),
    (dict(shape=(1, ) * 17), 'at most 16 sizes'), (dict(shape=(1 << 16, 1 << 16)), 'elements'),
    (dict(shape=(3, 2)), 'result 0 has shape'), (dict(dtype='si16'), 'expected .*si16'),
    (dict(dtype='i1'), 'tensor of si8'), (dict(scale=0.25), 'expected .*0.25')])
def test_types_are_checked(kind, message):
    made = relu()
    made.values['x0'].type = dataclasses.replace(made.values['x0'].type, **kind)
    with pytest.raises(BpuError, match=message):
        verify_program(made, [], 0)


@pytest.mark.parametrize('attrs, message', [
    ({}, 'expected the attribute dims'), (dict(dims=1), 'expected ints'),
    (dict(dims=[1.0]), 'expected ints'), (dict(dims=[True]), 'expected ints'),
    (dict(dims=[1 << 63]), 'expected ints'), (dict(dims=None), 'expected the attribute dims'),
    (dict(dims=np.array([1], np.int32)), 'expected ints'), (dict(dims=[]), 'dims is empty'),
    (dict(dims=np.array([[1]])), 'expected ints'), (dict(dims=[2]), 'dim 2'),
    (dict(dims=[0] * 50), '50 values')])
def test_attributes_are_of_their_kind(attrs, message):
    with pytest.raises(BpuError, match=f'bpu.reduce_max at .neck/here.: .*{message}'):
        check('reduce_max', [((2, 4), 'si8')], ((2, 1), 'si8'), attrs)


@pytest.mark.parametrize('op, shapes, result, attrs, message', [
    ('pad', [(2, 3)], (2, 3), dict(begin=[1, 0], end=[-1, 0], value=0), 'must not be negative'),
    ('pad', [(2, 3)], (3, 3), dict(begin=[1, 0], end=[0, 0], value=300), 'expected -128 to 127'),
    ('tile', [(2, 3)], (0, 3), dict(multiples=[0, 1]), 'sizes of 1 or more'),
    ('roll', [(2, 3)], (2, 3), dict(shifts=[1 << 40], dims=[0]), 'leave int32'),
    ('requantize', [(2, 3)], (2, 3), dict(multiplier=[20000], shift=[1 << 40]), 'shift'),
    ('reshape', [(2, 3)], (-2, -3), dict(shape=[-2, -3]), 'result|sizes|cannot reshape'),
    ('table', [(2, 3)], (2, 3), dict(entries=[200] * 256), 'leave si8'),
    ('max_pool', [(1, 4, 4, 1)], (1, 1, 1, 1), dict(
        kernel=[1 << 20, 1], stride=[1 << 20, 4], pad=[0] * 4, dilation=[1, 1], ceil_mode=True),
     'at most 65536'),
])
def test_values_that_no_kernel_takes_are_refused(op, shapes, result, attrs, message):
    with pytest.raises(BpuError, match=message):
        check(op, [(shape, 'si8') for shape in shapes], (result, 'si8'), attrs)


def test_memory_and_work_are_compared_with_the_budget():
    side = 1 << 15
    with pytest.raises(BpuError, match=f'asks for .* the budget is {MEMORY_BUDGET}'):
        check('tile', [((1, side), 'si8')], ((side, side), 'si8'), dict(multiples=[side, 1]))
    product = program('matmul', [((1400, 1400), 'si8'), ((1400, 1400), 'si8')],
                      ((1400, 1400), 'si8'), RATE)
    with pytest.raises(BpuError, match='asks for 2744000000 operations on elements'):
        verify_program(product, [], 0)
    verify_program(product, [], 40_000)  # bytes of constants that such a program may well have


def test_padding_that_makes_an_input_large_counts():
    attrs = dict(RATE, stride=[1 << 16, 1 << 16], pad=[1 << 16, 1 << 16, 1 << 16, 1 << 16],
                 dilation=[1, 1], groups=1)
    with pytest.raises(BpuError, match='neck/here'):
        check('conv2d', [((1, 1, 1, 1), 'si8'), ((1, 1, 1, 1), 'si8'), ((1, ), 'si32')],
              ((1, 3, 3, 1), 'si8'), attrs, constants=('x1', 'x2'))
