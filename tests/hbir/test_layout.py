"""Lazy layouts against numpy: an order changes how a tensor is stored, never what it holds."""
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmdet_bpu.hbir.layout import (CHANNELS_LAST, identity, permuted, reshaped, stored_shape,
                                   transposition, with_new_dim)


def logical(shape):
    return np.arange(np.prod(shape)).reshape(shape)


def stored(array, order):
    """How a logical array lies in memory under an order."""
    return array.transpose(order)


SHAPES = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=5).map(tuple)


@st.composite
def shape_and_order(draw):
    shape = draw(SHAPES)
    return shape, tuple(draw(st.permutations(range(len(shape)))))


@st.composite
def reshapes(draw):
    """A shape, an order, and another shape with as many elements."""
    shape, order = draw(shape_and_order())
    left, target = int(np.prod(shape)), []
    while left > 1:
        factor = draw(st.sampled_from([f for f in range(2, left + 1) if left % f == 0]))
        target.append(factor)
        left //= factor
    for _ in range(draw(st.integers(0, 2)) or not target):
        target.insert(draw(st.integers(0, len(target))), 1)
    return shape, order, tuple(target)


@given(reshapes())
def test_a_reshape_that_moves_nothing_keeps_the_memory(case):
    old, order, new = case
    result = reshaped(old, new, order)
    assume(result is not None)
    assert sorted(result) == list(range(len(new)))
    x = logical(old)
    np.testing.assert_array_equal(stored(x, order).ravel(), stored(x.reshape(new), result).ravel())


@given(reshapes())
def test_a_reshape_is_only_refused_where_no_order_keeps_the_memory(case):
    old, order, new = case
    if reshaped(old, new, order) is not None:
        return
    x = logical(old)
    memory = stored(x, order).ravel()
    assert not any(np.array_equal(stored(x.reshape(new), candidate).ravel(), memory)
                   for candidate in permutations(range(len(new))))


@given(SHAPES.flatmap(lambda shape: st.tuples(st.just(shape), st.permutations(range(len(shape))))))
def test_in_logical_order_every_reshape_moves_nothing(case):
    shape, dims = case
    new = tuple(np.prod([shape[d] for d in part], dtype=int) for part in np.array_split(
        range(len(shape)), 2))
    assert reshaped(shape, tuple(map(int, new)), identity(len(shape))) is not None


@given(shape_and_order(), st.data())
def test_a_permute_moves_nothing(case, data):
    shape, order = case
    dims = data.draw(st.permutations(range(len(shape))))
    x = logical(shape)
    result = permuted(order, dims)
    np.testing.assert_array_equal(stored(x.transpose(dims), result), stored(x, order))


@given(shape_and_order(), st.data())
def test_a_transposition_brings_one_order_into_another(case, data):
    shape, old = case
    new = tuple(data.draw(st.permutations(range(len(shape)))))
    x = logical(shape)
    moved = stored(x, old).transpose(transposition(old, new))
    np.testing.assert_array_equal(moved, stored(x, new))
    assert moved.shape == stored_shape(shape, new)


@given(shape_and_order(), st.data())
def test_a_new_dimension_moves_nothing(case, data):
    shape, order = case
    dim = data.draw(st.integers(0, len(shape)))
    x = logical(shape)
    result = with_new_dim(order, dim)
    assert sorted(result) == list(range(len(shape) + 1))
    np.testing.assert_array_equal(stored(np.expand_dims(x, dim), result).ravel(),
                                  stored(x, order).ravel())


@pytest.mark.parametrize('old, new, order, expected', [
    # A feature map (N, C, H, W) stored channels last: pixels merge, channels stay last.
    ((1, 8, 4, 5), (1, 8, 20), CHANNELS_LAST, (0, 2, 1)),
    # Channels into heads, still channels last.
    ((1, 8, 20), (2, 4, 20), (0, 2, 1), (2, 0, 1)),
    # Channels and pixels merge: they do not lie in that order.
    ((1, 8, 4, 5), (1, 160), CHANNELS_LAST, None),
])
def test_orders_of_feature_maps(old, new, order, expected):
    assert reshaped(old, new, order) == expected
