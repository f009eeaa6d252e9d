"""Reshapes and transposes are as few as can be, and give the same elements."""
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.builder import OpBuilder, attrs_of, operations
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.passes import drop_unused, merge_movement
from mmdet_bpu.hbir.passes.conversion import Conversion
from mmdet_bpu.hbir.text import verify_module
from mmdet_bpu.hbir.types import tensor_type, value_type


def chain(shape, steps):
    """An integer module of reshapes (``('reshape', shape)``) and transposes."""
    b = OpBuilder([('x', tensor_type(shape, 'si8', 0.5))], 'bpu')
    value = b.inputs[0]
    for name, argument in steps:
        now = value_type(value).shape
        shape = argument if name == 'reshape' else [now[d] for d in argument]
        attrs = {'shape' if name == 'reshape' else 'dims': list(argument)}
        value = b.op(f'bpu.{name}', [value], attrs, tensor_type(shape, 'si8', 0.5), site='here')
    return b.finish([('y', value)])


def merged(module):
    conversion = Conversion(None, result=module)
    merge_movement(conversion)
    drop_unused(conversion)
    verify_module(module)
    return [(op.name.split('.')[1], *attrs_of(op).values()) for op in operations(module)]


@pytest.mark.parametrize('shape, steps, expected', [
    ((2, 6), [('reshape', (12, )), ('reshape', (3, 4))], [('reshape', [3, 4])]),
    ((2, 6), [('reshape', (12, )), ('reshape', (2, 6))], []),
    ((2, 3, 4), [('transpose', (1, 0, 2)), ('transpose', (2, 0, 1))], [('transpose', [2, 1, 0])]),
    ((2, 3), [('transpose', (1, 0)), ('transpose', (1, 0))], []),
    ((1, 3), [('transpose', (1, 0))], [('reshape', [3, 1])]),
    ((2, 3), [('transpose', (0, 1))], []),
    # Heads to channels, then tokens first: one transpose does.
    ((8, 5, 32), [('transpose', (0, 2, 1)), ('reshape', (256, 5)), ('transpose', (1, 0))],
     [('transpose', [1, 0, 2]), ('reshape', [5, 256])]),
    # The reshape cuts across what the transposes move: nothing to merge.
    ((4, 6), [('transpose', (1, 0)), ('reshape', (8, 3)), ('transpose', (1, 0))],
     [('transpose', [1, 0]), ('reshape', [8, 3]), ('transpose', [1, 0])]),
])
def test_chains(shape, steps, expected):
    assert merged(chain(shape, steps)) == expected


def test_a_value_that_something_else_reads_stays():
    b = OpBuilder([('x', tensor_type((2, 6), 'si8', 0.5))], 'bpu')
    flat = b.op('bpu.reshape', b.inputs, dict(shape=[12]), tensor_type((12, ), 'si8', 0.5))
    back = b.op('bpu.reshape', [flat], dict(shape=[3, 4]), tensor_type((3, 4), 'si8', 0.5))
    assert merged(b.finish([('flat', flat), ('back', back)])) == [
        ('reshape', [12]), ('reshape', [3, 4])]


@st.composite
def movements(draw):
    factors = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=4))
    steps = []
    shape = tuple(factors)
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            dims = draw(st.permutations(range(len(shape))))
            steps.append(('transpose', tuple(dims)))
            shape = tuple(shape[d] for d in dims)
        else:
            target, left = [], int(np.prod(shape))
            while left > 1:
                factor = draw(st.sampled_from([f for f in (2, 3, 4, 6, left) if left % f == 0]))
                target.append(factor)
                left //= factor
            target.insert(draw(st.integers(0, len(target))), 1)
            shape = tuple(target)
            steps.append(('reshape', shape))
    return tuple(factors), steps


@given(movements())
def test_elements_are_the_same_and_nothing_is_left_to_merge(case):
    shape, steps = case
    x = np.arange(np.prod(shape), dtype=np.int8).reshape(shape)
    expected = x
    for name, argument in steps:
        expected = expected.reshape(argument) if name == 'reshape' else expected.transpose(argument)
    module = chain(shape, steps)
    left = merged(module)
    assert len(left) <= len(steps)
    found = Interpreter(program_from_module(module)).run({'x': torch.from_numpy(x.copy())})['y']
    np.testing.assert_array_equal(found.numpy(), expected)
    assert merged(module) == left


def test_what_became_what_follows():
    module = chain((2, 6), [('reshape', (12, )), ('reshape', (3, 4))])
    first, last = operations(module)
    conversion = Conversion(None, result=module, emitted={'flat': first.results[0],
                                                          'back': last.results[0]})
    merge_movement(conversion)
    drop_unused(conversion)
    only, = operations(module)
    assert conversion.emitted == {'back': only.results[0]}
