"""Deformable attention in one go equals the reference, and is left alone where its form differs."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.kernels.registry import kernel_set
from mmdet_bpu.program.sampling_grid import axis_sampling
from tests.integer_programs import ProgramMaker

SIZES = [(1, 1), (2, 3), (4, 2), (5, 7)]


def moved(maker, name, *, shape=None, dims=None):
    old, dtype = maker.values[name].type.shape, maker.values[name].type.dtype
    if shape is not None:
        return maker.op('reshape', [name], shape, dtype, shape=list(shape))
    return maker.op('transpose', [name], [old[dim] for dim in dims], dtype, dims=list(dims))


def sliced(maker, name, dim, begin, end):
    shape, dtype = maker.values[name].type.shape, maker.values[name].type.dtype
    begins, ends = [0] * len(shape), list(shape)
    begins[dim], ends[dim] = begin, end
    return maker.op('slice', [name], [e - b for b, e in zip(begins, ends)], dtype, begin=begins,
                    end=ends, step=[1] * len(shape))


def sampled(maker, value, grid, scale, bits, padding):
    """A grid_sample of (N, H, W, C) at (N, Q, P, 2)."""
    (_, height, width, channels), shape = (maker.values[n].type.shape for n in (value, grid))
    x, y = axis_sampling(width, scale, bits), axis_sampling(height, scale, bits)
    return maker.op('grid_sample', [value, grid], (*shape[:3], channels), fraction_bits=bits,
                    padding=padding, x_multiplier=[x.multiplier], x_shift=[x.shift],
                    x_offset=x.offset, y_multiplier=[y.multiplier], y_shift=[y.shift],
                    y_offset=y.offset)


def attention(sizes=SIZES[1:], heads=2, queries=5, points=2, channels=16, scale=1.2 / 2**15,
              bits=8, padding='zeros', product=(20038, 21), total=(31197, 15), grid_first=False,
              shared=None, maker=None):
    """As the converter writes it; ``shared`` names a value that is an output as well.

    With ``grid_first`` the levels of the grid are cut last, after the transpose of all.
    """
    maker = maker or ProgramMaker()
    tokens, levels = sum(math.prod(size) for size in sizes), len(sizes)
    value = maker.input('value', (1, tokens, heads * channels))
    grid = maker.input('grid', (1, queries, heads, levels, points, 2), 'si16')
    weights = maker.input('weights', (1, queries, heads, levels * points))
    named = {'tokens': moved(maker, value, shape=(1, tokens, heads, channels))}
    samples, begin = [], 0
    for level, (height, width) in enumerate(sizes):
        part = sliced(maker, named['tokens'], 1, begin, begin + height * width)
        begin += height * width
        image = moved(maker, part, shape=(height, width, heads, channels))
        if grid_first:
            whole = moved(maker, grid, dims=(0, 2, 1, 3, 4, 5))
            cut = sliced(maker, whole, 3, level, level + 1)
            place = moved(maker, cut, shape=(heads, queries, points, 2))
        else:
            cut = sliced(maker, grid, 3, level, level + 1)
            flat = moved(maker, cut, shape=(queries, heads, points, 2))
            place = moved(maker, flat, dims=(1, 0, 2, 3))
        sample = sampled(maker, moved(maker, image, dims=(2, 0, 1, 3)), place, scale, bits,
                         padding)
        named['sample'] = sample
        samples.append(moved(maker, sample, shape=(heads, queries, 1, points, channels)))
    stacked = maker.op('concat', samples, (heads, queries, levels, points, channels), dim=2)
    joined = moved(maker, stacked, shape=(heads, queries, levels * points, channels))
    factors = moved(maker, weights, dims=(2, 1, 3, 0))
    named['product'] = maker.op('mul', [joined, factors],
                                (heads, queries, levels * points, channels),
                                multiplier=[product[0]], shift=[product[1]])
    summed = maker.op('reduce_sum', [named['product']], (heads, queries, 1, channels), dims=[2],
                      multiplier=[total[0]], shift=[total[1]])
    named['sum'] = moved(maker, summed, shape=(heads, queries, channels))
    rows = moved(maker, named['sum'], dims=(1, 0, 2))
    result = moved(maker, rows, shape=(1, queries, heads * channels))
    return maker.finish(result, *([named[shared]] if shared else []))


def feed(program, seed=0):
    """Inputs with many at the ends of their types."""
    rng, inputs = np.random.default_rng(seed), {}
    for name in program.inputs:
        kind = program.values[name].type
        dtype = {'si8': np.int8, 'si16': np.int16}[kind.dtype]
        ends = np.iinfo(dtype)
        numbers = rng.integers(ends.min, ends.max + 1, kind.shape)
        extreme = rng.choice([ends.min, ends.max, 0], kind.shape)
        inputs[name] = torch.from_numpy(
            np.where(rng.random(kind.shape) < 0.2, extreme, numbers).astype(dtype))
    return inputs


def fused(program):
    """How many grid_samples lie in groups."""
    constants = {name: torch.from_numpy(value.data) for name, value in program.values.items()
                 if value.data is not None}
    groups = kernel_set('fast').groups(program, constants)
    return sum(program.instructions[place].op == 'bpu.grid_sample'
               for group in groups for place in group.members)


def assert_equal(program, seed=0):
    inputs = feed(program, seed)
    expected = Interpreter(program).run(inputs)
    found = Interpreter(program, kernels='fast').run(inputs)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_equals_the_reference(data):
    program = attention(
        sizes=data.draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=4)),
        heads=data.draw(st.integers(1, 3)), queries=data.draw(st.integers(1, 6)),
        points=data.draw(st.integers(1, 4)),
        channels=data.draw(st.sampled_from([1, 3, 16, 21, 32])),
        scale=data.draw(st.sampled_from([1.0 / 2**15, 1.7 / 2**15, 1000.0, 1e12])),
        bits=data.draw(st.sampled_from([1, 7, 8, 9, 11])),
        padding=data.draw(st.sampled_from(['zeros', 'border'])),
        product=(data.draw(st.sampled_from([0, 2**14, 20038, 2**15 - 1])),
                 data.draw(st.sampled_from([-3, 0, 1, 14, 17, 20, 21, 30, 31, 50]))),
        total=(data.draw(st.sampled_from([0, 2**14, 31197, 2**15 - 1])),
               data.draw(st.sampled_from([-9, 0, 1, 12, 15, 18, 30, 31, 60]))),
        grid_first=data.draw(st.booleans()))
    grids = sum(each.op == 'bpu.grid_sample' for each in program.instructions)
    assert fused(program) == grids
    assert_equal(program, data.draw(st.integers(0, 2**16)))


def test_a_large_one_is_shared_out_over_threads():
    program = attention(queries=900, heads=4, points=4, channels=32)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert fused(program) == 3
        assert_equal(program)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize('weight', [-128, 127])
@pytest.mark.parametrize('value', [-128, 127])
@pytest.mark.parametrize('points', [85, 86])
def test_sums_of_the_largest_samples(points, weight, value):
    """Up to 255 points the sums fit int16; beyond, the instructions are left alone."""
    program = attention(points=points, product=(2**14, 14), padding='border', total=(2**14, 22))
    assert fused(program) == (3 if points == 85 else 0)
    inputs = feed(program)
    inputs['value'].fill_(value)
    inputs['weights'].fill_(weight)
    expected, found = (Interpreter(program, kernels=each).run(inputs)
                       for each in ('reference', 'fast'))
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name])


@pytest.mark.parametrize('weight, rounded', [(1, 0), (3, 2), (-1, 0), (-3, -2)])
def test_a_weighted_sample_between_two_results_becomes_the_even_one(weight, rounded):
    """32 x weight / 64 per point, of 4 points, summed as it is."""
    program = attention(sizes=[(4, 4), (5, 7)], product=(2**14, 20), total=(2**14, 14),
                        padding='border')
    inputs = feed(program)
    inputs['value'].fill_(32)
    inputs['weights'].fill_(weight)
    result, = Interpreter(program, kernels='fast').run(inputs).values()
    assert (result == 4 * rounded).all()


@pytest.mark.parametrize('shared, count', [('tokens', 3), ('sum', 3), ('sample', 0),
                                           ('product', 0)])
def test_what_others_read_too_is_stored(shared, count):
    program = attention(shared=shared)
    assert fused(program) == count
    assert_equal(program)


def test_values_may_be_constants():
    program = attention()
    value = program.values['value']
    value.data = np.random.default_rng(3).integers(-128, 128, value.type.shape).astype(np.int8)
    program.inputs.remove('value')
    assert fused(program) == 3
    assert_equal(program)


def test_a_weight_per_channel_is_left_alone():
    maker = ProgramMaker()
    value, grid = maker.input('value', (2, 4, 5, 16)), maker.input('grid', (2, 3, 2, 2), 'si16')
    samples = sampled(maker, value, grid, 1 / 2**15, 8, 'zeros')
    product = maker.op('mul', [samples, maker.input('weights', (2, 3, 2, 16))], (2, 3, 2, 16),
                       multiplier=[20000], shift=[21])
    program = maker.finish(maker.op('reduce_sum', [product], (2, 3, 1, 16), dims=[2],
                                    multiplier=[20000], shift=[15]))
    assert fused(program) == 0
    assert_equal(program)


def test_samples_that_weigh_themselves_are_left_alone():
    maker = ProgramMaker()
    value, grid = maker.input('value', (2, 4, 5, 16)), maker.input('grid', (2, 3, 2, 2), 'si16')
    samples = sampled(maker, value, grid, 1 / 2**15, 8, 'zeros')
    single = moved(maker, sliced(maker, samples, 3, 0, 1), shape=(2, 3, 2, 1))
    product = maker.op('mul', [samples, single], (2, 3, 2, 16), multiplier=[20000], shift=[21])
    program = maker.finish(maker.op('reduce_sum', [product], (2, 3, 1, 16), dims=[2],
                                    multiplier=[20000], shift=[15]))
    assert fused(program) == 0
    assert_equal(program)


def test_a_sum_over_queries_is_left_alone():
    maker = ProgramMaker()
    value, grid = maker.input('value', (2, 4, 5, 16)), maker.input('grid', (2, 3, 2, 2), 'si16')
    samples = sampled(maker, value, grid, 1 / 2**15, 8, 'zeros')
    product = maker.op('mul', [samples, maker.input('weights', (2, 3, 2, 1))], (2, 3, 2, 16),
                       multiplier=[20000], shift=[21])
    program = maker.finish(maker.op('reduce_sum', [product], (2, 1, 1, 16), dims=[1, 2],
                                    multiplier=[20000], shift=[15]))
    assert fused(program) == 0
    assert_equal(program)
