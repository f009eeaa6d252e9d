"""Products on the integer unit give the reference's bits: shapes, groups, types and extremes."""
import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.kernels.compiled_loops import SHARE
from mmdet_bpu.kernels.fast import FAST, products
from mmdet_bpu.kernels.reference import REFERENCE
from mmdet_bpu.program.dtypes import INTEGER_RANGES, TORCH_DTYPES
from mmdet_bpu.program.numerics import Operand, quantize_multiplier

CONSTANTS = {'bpu.conv2d': (1, 2), 'bpu.linear': (1, 2), 'bpu.matmul': ()}


def both(op: str, inputs: list, attrs: dict) -> tuple:
    """What the fast set and the reference make of an instruction."""
    operands = [Operand.of(tensor, index in CONSTANTS[op]) for index, tensor in enumerate(inputs)]
    expected, = REFERENCE.plan(op, operands, attrs)(inputs)
    run = FAST.plan(op, operands, {**attrs, 'out_shapes': [tuple(expected.shape)]})
    assert run is not None, f'{op} is left to the reference'
    found, = run(inputs)
    return found, expected


@contextmanager
def on_threads(count: int):
    """Loops on as many threads, inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def integers(rng, shape: tuple, dtype: str) -> torch.Tensor:
    """Random integers of a type, many of them at its ends."""
    low, high = INTEGER_RANGES[dtype]
    values = rng.integers(low, high + 1, shape)
    ends = rng.choice([low, high], shape)
    return torch.from_numpy(np.where(rng.random(shape) < 0.4, ends, values)).to(
        TORCH_DTYPES[dtype])


def pairs(rng, count: int, ratio: float) -> dict:
    """Multipliers and shifts around a ratio, one per channel."""
    found = [quantize_multiplier(ratio * float(rng.uniform(0.5, 2))) for _ in range(count)]
    return dict(multiplier=[m for m, _ in found], shift=[s for _, s in found])


def product_case(rng, in_dtype: str, out_dtype: str, residual_dtype, length: int, channels: int,
                 relu: bool) -> tuple:
    """Bias and attributes of a product whose results fill their type, and its residual's type."""
    largest = length * 64 * INTEGER_RANGES[in_dtype][1]
    ratio = INTEGER_RANGES[out_dtype][1] / largest * 4
    attrs = dict(**pairs(rng, channels, ratio), relu=relu, out_dtypes=[out_dtype])
    if residual_dtype:
        extra = pairs(rng, channels, largest / INTEGER_RANGES[residual_dtype][1] / 8)
        attrs.update({f'residual_{key}': value for key, value in extra.items()})
    bias = torch.from_numpy(rng.integers(-largest // 8, largest // 8 + 1, channels)).int()
    return bias, attrs


TYPES = dict(in_dtype=st.sampled_from(['si8', 'si16']),
             out_dtype=st.sampled_from(['si8', 'si16', 'si32']),
             residual_dtype=st.sampled_from([None, 'si8', 'si16']), relu=st.booleans(),
             seed=st.integers(0, 2**32 - 1))


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 30), features=st.integers(1, 70),
       channels=st.sampled_from([1, 15, 16, 64, 65, 130]), **TYPES)
def test_linear(rows, features, channels, in_dtype, out_dtype, residual_dtype, relu, seed):
    rng = np.random.default_rng(seed)
    bias, attrs = product_case(rng, in_dtype, out_dtype, residual_dtype, features, channels, relu)
    inputs = [integers(rng, (2, rows, features), in_dtype),
              integers(rng, (channels, features), 'si8'), bias]
    if residual_dtype:
        inputs.append(integers(rng, (2, rows, channels), residual_dtype))
    found, expected = both('bpu.linear', inputs, attrs)
    assert found.dtype == expected.dtype and torch.equal(found, expected)


@settings(max_examples=80, deadline=None)
@given(size=st.tuples(st.integers(5, 9), st.integers(5, 9)), groups=st.sampled_from([1, 2, 6]),
       per_group=st.tuples(st.integers(1, 5), st.integers(1, 18)),
       kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
       pad=st.tuples(*[st.integers(0, 3)] * 4), **TYPES)
def test_conv2d(size, groups, per_group, kernel, stride, dilation, pad, in_dtype, out_dtype,
                residual_dtype, relu, seed):
    rng = np.random.default_rng(seed)
    channels = groups * per_group[1]
    length = kernel[0] * kernel[1] * per_group[0]
    bias, attrs = product_case(rng, in_dtype, out_dtype, residual_dtype, length, channels, relu)
    attrs.update(stride=stride, pad=pad, dilation=dilation, groups=groups)
    inputs = [integers(rng, (2, *size, groups * per_group[0]), in_dtype),
              integers(rng, (channels, *kernel, per_group[0]), 'si8'), bias]
    if residual_dtype:
        out = [(size[axis] + pad[axis] + pad[axis + 2] - dilation[axis] * (kernel[axis] - 1) - 1)
               // stride[axis] + 1 for axis in (0, 1)]
        inputs.append(integers(rng, (2, *out, channels), residual_dtype))
    found, expected = both('bpu.conv2d', inputs, attrs)
    assert found.dtype == expected.dtype and torch.equal(found, expected)


@settings(max_examples=80, deadline=None)
@given(size=st.tuples(st.integers(9, 13), st.integers(9, 13)),
       channels=st.sampled_from([2, 15, 16, 17, 24, 63, 64, 65, 79, 80, 96, 130]),
       kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
       stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
       pad=st.tuples(*[st.integers(0, 5)] * 4), **TYPES)
def test_depthwise_conv2d(size, channels, kernel, stride, dilation, pad, in_dtype, out_dtype,
                          residual_dtype, relu, seed):
    rng = np.random.default_rng(seed)
    taps = kernel[0] * kernel[1]
    bias, attrs = product_case(rng, in_dtype, out_dtype, residual_dtype, taps, channels, relu)
    attrs.update(stride=stride, pad=pad, dilation=dilation, groups=channels)
    inputs = [integers(rng, (2, *size, channels), in_dtype),
              integers(rng, (channels, *kernel, 1), 'si8'), bias]
    if residual_dtype:
        out = [(size[axis] + pad[axis] + pad[axis + 2] - dilation[axis] * (kernel[axis] - 1) - 1)
               // stride[axis] + 1 for axis in (0, 1)]
        inputs.append(integers(rng, (2, *out, channels), residual_dtype))
    found, expected = both('bpu.conv2d', inputs, attrs)
    assert found.dtype == expected.dtype and torch.equal(found, expected)


def test_other_groups_and_weights_of_int16_are_products(monkeypatch):
    planned = []
    monkeypatch.setattr(products, 'plan_depthwise', lambda *arguments: planned.append(arguments))
    monkeypatch.setattr(products, 'plan_product', lambda *arguments: None)
    for channels, outputs, weight in ((4, 4, 'si8'), (4, 8, 'si8'), (4, 4, 'si16'), (1, 1, 'si8')):
        operands = [Operand.of(integers(np.random.default_rng(0), shape, dtype), constant)
                    for shape, dtype, constant in (((1, 5, 5, channels), 'si8', False),
                                                   ((outputs, 3, 3, 1), weight, True),
                                                   ((outputs, ), 'si32', True))]
        products.conv2d(operands, dict(stride=[1, 1], dilation=[1, 1], pad=[0] * 4, groups=channels,
                                       out_shapes=[(1, 3, 3, outputs)]))
    assert len(planned) == 1 and planned[0][0][1].shape == (4, 3, 3, 1)


@settings(max_examples=40, deadline=None)
@given(batch=st.sampled_from([(), (3, ), (2, 2)]), rows=st.integers(1, 20),
       depth=st.integers(1, 40), columns=st.integers(1, 70),
       dtypes=st.sampled_from([('si8', 'si8'), ('si16', 'si8'), ('si8', 'si16')]),
       out_dtype=st.sampled_from(['si8', 'si16', 'si32']), seed=st.integers(0, 2**32 - 1))
def test_matmul(batch, rows, depth, columns, dtypes, out_dtype, seed):
    rng = np.random.default_rng(seed)
    largest = depth * INTEGER_RANGES[dtypes[0]][1] * INTEGER_RANGES[dtypes[1]][1]
    attrs = dict(**pairs(rng, 1, INTEGER_RANGES[out_dtype][1] / largest * 4),
                 out_dtypes=[out_dtype])
    inputs = [integers(rng, (*batch, rows, depth), dtypes[0]),
              integers(rng, (*batch, depth, columns), dtypes[1])]
    found, expected = both('bpu.matmul', inputs, attrs)
    assert found.dtype == expected.dtype and torch.equal(found, expected)


@pytest.mark.parametrize('rows, channels, threads', [(3, 700, 2), (4000, 24, 2), (4000, 24, 1)])
def test_threads_share_rows_or_columns(rows, channels, threads):
    rng = np.random.default_rng(0)
    bias, attrs = product_case(rng, 'si8', 'si8', None, 256, channels, False)
    inputs = [integers(rng, (1, rows, 256), 'si8'), integers(rng, (channels, 256), 'si8'), bias]
    with on_threads(threads):
        found, expected = both('bpu.linear', inputs, attrs)
    assert torch.equal(found, expected)


@pytest.mark.parametrize('threads', [1, 2, 3])
def test_threads_share_pixels_of_a_depthwise_convolution(threads):
    rng = np.random.default_rng(1)
    bias, attrs = product_case(rng, 'si8', 'si8', None, 25, 70, True)
    attrs.update(stride=(1, 1), pad=(2, 2, 2, 2), dilation=(1, 1), groups=70)
    inputs = [integers(rng, (2, 70, 61, 70), 'si8'), integers(rng, (70, 5, 5, 1), 'si8'), bias]
    assert 2 * 70 * 61 * (70 * 25 // 16) > 3 * SHARE  # enough for three
    with on_threads(threads):
        found, expected = both('bpu.conv2d', inputs, attrs)
    assert torch.equal(found, expected)


def test_without_a_known_unit_products_are_left_to_the_reference():
    code = 'from mmdet_bpu.kernels.fast import FAST; print(FAST.notes)'
    plain = {**os.environ, 'NUMBA_CPU_NAME': 'generic', 'NUMBA_CPU_FEATURES': ''}
    found = subprocess.run([sys.executable, '-c', code], env=plain, capture_output=True, text=True)
    assert 'no integer unit known on this processor' in found.stdout, found.stderr[-2000:]


def test_a_unit_that_is_not_exact_is_not_used(monkeypatch):
    bias, attrs = product_case(np.random.default_rng(0), 'si8', 'si8', None, 8, 4, False)
    operands = [Operand('si8', (1, 2, 8)), Operand('si8', (4, 8), torch.ones(4, 8, dtype=torch.int8)),
                Operand('si32', (4, ), bias)]
    attrs['out_shapes'] = [(1, 2, 4)]
    assert FAST.plan('bpu.linear', operands, attrs) is not None
    monkeypatch.setattr(products, 'product', lambda *args, **kwargs: None)  # sums stay what they were
    monkeypatch.setattr(FAST, 'notes', list(FAST.notes))
    products.unit_is_exact.cache_clear()
    try:
        assert FAST.plan('bpu.linear', operands, attrs) is None
        assert 'not exact' in FAST.notes[-1]
    finally:
        products.unit_is_exact.cache_clear()
