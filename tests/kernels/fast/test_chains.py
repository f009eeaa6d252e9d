"""Chains on the vector machine: which instructions become one pass, and that no bit changes."""
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integer_programs import ProgramMaker
from tests.kernels.fast.chain_programs import TABLES, chain_programs, run_both


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(chain_programs(), st.integers(0, 2**32 - 1))
def test_fast_equals_reference_on_any_program(program, seed):
    run_both(program, seed)


@pytest.fixture
def maker():
    return ProgramMaker()


def fused(interpreters) -> list[tuple[str, ...]]:
    """Operations of each step that computes several."""
    interpreter = interpreters[True]
    return [tuple(interpreter.program.instructions[place].op[4:] for place in step.members)
            for step in interpreter._steps if len(step.members) > 1]


def softmax(maker, x, shape):
    row = (*shape[:-1], 1)
    last = [len(shape) - 1]
    side = dict(lhs_multiplier=[20000], lhs_shift=[7], rhs_multiplier=[20000], rhs_shift=[7])
    top = maker.op('reduce_max', [x], row, 'si16', dims=last)
    low = maker.op('sub', [x, top], shape, 'si16', guard_bits=8, relu=False, **side)
    powers = maker.op('table', [low], shape, 'si16', **TABLES['si16', 'si16'].attrs)
    total = maker.op('reduce_sum', [powers], row, 'si16', dims=last, multiplier=[27211],
                     shift=[18])
    part = maker.op('table', [total], row, 'si16', **TABLES['si16', 'si16'].attrs)
    return maker.op('mul', [powers, part], shape, 'si8', multiplier=[32514], shift=[28])


def layer_norm(maker, x, shape):
    row, last = (*shape[:-1], 1), [len(shape) - 1]
    mean = maker.op('reduce_sum', [x], row, 'si16', dims=last, multiplier=[20053], shift=[17])
    centred = maker.op('sub', [x, mean], shape, 'si16', guard_bits=8, relu=False,
                       lhs_multiplier=[32195], lhs_shift=[7], rhs_multiplier=[26304],
                       rhs_shift=[12])
    square = maker.op('mul', [centred, centred], shape, 'si16', multiplier=[16384], shift=[15])
    variance = maker.op('reduce_sum', [square], row, 'si16', dims=last, multiplier=[24211],
                        shift=[19])
    scale = maker.op('table', [variance], row, 'si16', **TABLES['si16', 'si16'].attrs)
    normal = maker.op('mul', [centred, scale], shape, 'si16', multiplier=[26456], shift=[26])
    weight = maker.integers((1, 1, shape[-1]), 'int16', -9000, 9000)
    bias = maker.integers((1, 1, shape[-1]), 'int16', -9000, 9000)
    scaled = maker.op('mul', [normal, weight], shape, 'si16', multiplier=[16384], shift=[27])
    return maker.op('add', [scaled, bias], shape, 'si8', guard_bits=8, relu=False,
                    lhs_multiplier=[32436], lhs_shift=[13], rhs_multiplier=[18906],
                    rhs_shift=[14])


@pytest.mark.parametrize('shape', [(1, 50, 8, 16), (1, 700, 33), (3, 2, 1100)])
def test_a_softmax_is_one_pass(maker, shape):
    result = softmax(maker, maker.input('x', shape, 'si16'), shape)
    assert fused(run_both(maker.finish(result))) == [
        ('reduce_max', 'sub', 'table', 'reduce_sum', 'table', 'mul')]


@pytest.mark.parametrize('shape', [(1, 700, 64), (2, 3, 256), (1, 5, 1000)])
def test_a_layer_norm_is_one_pass(maker, shape):
    result = layer_norm(maker, maker.input('x', shape, 'si16'), shape)
    assert fused(run_both(maker.finish(result))) == [
        ('reduce_sum', 'sub', 'mul', 'reduce_sum', 'table', 'mul', 'mul', 'add')]


def test_many_rows_are_shared_out_to_threads(maker):
    shape = (1, 9001, 96)
    result = layer_norm(maker, maker.input('x', shape, 'si16'), shape)
    run_both(maker.finish(result))


def double(maker, x, shape):
    return maker.op('mul', [x, x], shape, 'si8', multiplier=[16384], shift=[20])


def test_a_value_that_is_read_outside_before_the_chain_ends_ends_it(maker):
    """The transpose needs ``first``, so what reads the transpose's result runs after it."""
    shape = (4, 4)
    first = double(maker, double(maker, maker.input('x', shape), shape), shape)
    turned = maker.op('transpose', [first], shape, dims=[1, 0])
    sides = dict(lhs_multiplier=[16384], lhs_shift=[10], rhs_multiplier=[16384], rhs_shift=[10])
    total = maker.op('add', [first, turned], shape, guard_bits=4, relu=False, **sides)
    result = maker.op('relu', [total], shape)
    assert fused(run_both(maker.finish(result))) == [('mul', 'mul'), ('add', 'relu')]


def test_a_value_that_is_needed_outside_is_stored(maker):
    shape = (6, 70)
    inner = double(maker, maker.input('x', shape), shape)
    result = double(maker, inner, shape)
    interpreters = run_both(maker.finish(inner, result))
    assert fused(interpreters) == [('mul', 'mul')]
    step = interpreters[True]._steps[0].instruction
    assert step.outputs == [inner, result]


def test_a_reshape_inside_of_a_chain_is_no_step(maker):
    first = double(maker, maker.input('x', (6, 5, 8)), (6, 5, 8))
    flat = maker.op('reshape', [first], (30, 8), shape=[30, 8])
    row = maker.op('reduce_max', [flat], (30, 1), dims=[1])
    result = maker.op('max', [flat, row], (30, 8))
    assert fused(run_both(maker.finish(result))) == [('mul', 'reshape', 'reduce_max', 'max')]


@pytest.mark.parametrize('shapes', [
    [(5, 1, 4, 1, 2), (5, 3, 4, 6, 2)], [(3, 1, 7), (1, 5, 1)],
    [(1, 1, 1, 32, 1), (2, 3, 4, 32, 8)], [(1, ), (4, 9)],
    [(2, 1, 3, 1, 4, 1), (1, 5, 1, 3, 1, 6)], [(7, ), (7, )], [(1, 1), (1, 1)]])
def test_operands_are_broadcast_as_in_numpy(maker, shapes):
    names = [maker.input(f'x{index}', shape, 'si16') for index, shape in enumerate(shapes)]
    sides = dict(lhs_multiplier=[32195], lhs_shift=[9], rhs_multiplier=[26304], rhs_shift=[12])
    for left, right in (names, names[::-1]):
        maker.op('sub', [left, right], np.broadcast_shapes(*shapes), 'si16', guard_bits=8,
                 relu=False, **sides)
    outputs = [each.outputs[0] for each in maker.instructions]
    found = run_both(maker.finish(*outputs))
    assert found[False].kernel_counts == {'fast': {'bpu.sub': 2}}


def test_no_element_is_computed_of_an_empty_tensor(maker):
    result = double(maker, maker.input('x', (0, 8)), (0, 8))
    run_both(maker.finish(result))


def test_the_sums_of_a_group_norm_are_taken_where_its_squares_are_made(maker):
    """Sums over a row of pixels and over the channels of a group, several times a block."""
    shape, sums = (1, 6, 40, 4, 16), (1, 6, 1, 4, 1)
    x, mean = maker.input('x', shape, 'si16'), maker.input('mean', (1, 1, 1, 4, 1), 'si16')
    sides = dict(lhs_multiplier=[32195], lhs_shift=[7], rhs_multiplier=[26304], rhs_shift=[12])
    centred = maker.op('sub', [x, mean], shape, 'si16', guard_bits=8, relu=False, **sides)
    square = maker.op('mul', [centred, centred], shape, 'si16', multiplier=[16384], shift=[28])
    total = maker.op('reduce_sum', [square], sums, 'si16', dims=[2, 4], multiplier=[20000],
                     shift=[22])
    assert fused(run_both(maker.finish(centred, total))) == [('sub', 'mul', 'reduce_sum')]


@pytest.mark.parametrize('shape, dims', [
    ((6, 300, 5), [0]), ((6, 300, 5), [0, 1]), ((2, 9, 7, 3), [1, 3]), ((5, 3, 4), [0, 2]),
    ((4, 1, 6), [1]), ((7, 2000), [1]), ((3, 4, 2, 5), [0, 1, 2, 3]), ((3, 2, 5, 2), [0, 2])])
@pytest.mark.parametrize('op', ['reduce_sum', 'reduce_max', 'reduce_min'])
def test_any_dimensions_are_reduced(maker, op, shape, dims):
    x = maker.input('x', shape, 'si16')
    result = tuple(1 if dim in dims else size for dim, size in enumerate(shape))
    attrs = dict(multiplier=[20001], shift=[18]) if op == 'reduce_sum' else {}
    run_both(maker.finish(maker.op(op, [x], result, 'si16', dims=dims, **attrs)))
