"""Transpositions in tiles equal numpy's, for every size of an element."""
import itertools

import numpy as np
import pytest

from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.kernels.fast.transpose import matrices
from tests.integer_programs import ProgramMaker
from tests.kernels.fast.chain_programs import extremes


@pytest.mark.parametrize('dtype', ['si8', 'si16', 'si32', 'i1'])
@pytest.mark.parametrize('shape, dims', [
    ((1, 9, 17, 40), (0, 3, 1, 2)), ((70, 3, 33), (1, 0, 2)), ((2, 65, 31), (0, 2, 1)),
    ((1, 5, 1, 64), (3, 2, 0, 1)), ((4, 3, 5), (2, 1, 0)), ((3, 1, 2), (0, 2, 1)), ((1, 1), (1, 0)),
    ((700, 1000), (1, 0)), ((0, 4), (1, 0))])
def test_fast_equals_numpy(dtype, shape, dims):
    maker = ProgramMaker()
    result = tuple(shape[dim] for dim in dims)
    name = maker.op('transpose', [maker.input('x', shape, dtype)], result, dtype, dims=list(dims))
    x = extremes(shape, dtype, np.random.default_rng(3))
    found = Interpreter(maker.finish(name), kernels='fast').run({'x': x})[name]
    assert np.array_equal(found.numpy(), x.numpy().transpose(dims)) and found.is_contiguous()


@pytest.mark.parametrize('shape', [(2, 3, 4), (2, 1, 4, 3), (5, 2, 3, 2)])
def test_a_batch_of_matrices_is_recognised(shape):
    """Turned as (A, B, C) to (A, C, B), the elements lie as numpy has them."""
    x = np.arange(np.prod(shape)).reshape(shape)
    recognised = 0
    for dims in itertools.permutations(range(len(shape))):
        found = matrices(shape, dims)
        if found is not None:
            recognised += 1
            assert np.array_equal(x.reshape(found).transpose(0, 2, 1).ravel(),
                                  x.transpose(dims).ravel())
    assert recognised >= 3


def test_the_layout_change_of_a_head_is_one():
    assert matrices((1, 40, 40, 720), (0, 3, 1, 2)) == (1, 1600, 720)


@pytest.mark.parametrize('shape, dims', [((2, 3, 4), (1, 0, 2)), ((2, 3, 4), (2, 1, 0)),
                                         ((2, 3), (0, 1))])
def test_other_orders_are_left_to_the_reference(shape, dims):
    assert matrices(shape, dims) is None
