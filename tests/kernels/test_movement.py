"""Data movement against numpy; element types never change."""
import numpy as np
import pytest
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.registry import KERNELS

X = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4) - 7


def run(op, *arrays, **attrs):
    return KERNELS[op]([torch.as_tensor(a) for a in arrays], attrs)[0]


@pytest.mark.parametrize('op, attrs, expected', [
    ('bpu.reshape', dict(shape=[4, 6]), X.reshape(4, 6)),
    ('bpu.transpose', dict(dims=[2, 0, 1]), X.transpose(2, 0, 1)),
    ('bpu.slice', dict(begin=[0, 1, 0], end=[2, 3, 4], step=[1, 1, 3]), X[0:2, 1:3, 0:4:3]),
    ('bpu.flip', dict(dims=[0, 2]), X[::-1, :, ::-1]),
    ('bpu.roll', dict(shifts=[-1, 7], dims=[2, 1]), np.roll(X, (-1, 7), (2, 1))),
    ('bpu.tile', dict(multiples=[1, 2, 3]), np.tile(X, (1, 2, 3))),
    ('bpu.pad', dict(begin=[0, 1, 0], end=[2, 0, 1], value=-9),
     np.pad(X, ((0, 2), (1, 0), (0, 1)), constant_values=-9))])
@pytest.mark.parametrize('dtype', [np.int8, np.int16, np.int32])
def test_one_operand_ops_equal_numpy(op, attrs, expected, dtype):
    result = run(op, X.astype(dtype), **attrs)
    assert result.numpy().dtype == dtype and result.is_contiguous()
    assert np.array_equal(result.numpy(), expected)


def test_reshape_of_a_transposed_view_reads_row_major():
    view = torch.as_tensor(X).permute(2, 1, 0)
    result = KERNELS['bpu.reshape']([view], dict(shape=[24]))[0]
    assert np.array_equal(result.numpy(), X.transpose(2, 1, 0).ravel())


def test_masks_move_too():
    mask = X > 0
    assert np.array_equal(run('bpu.transpose', mask, dims=[1, 0, 2]), mask.transpose(1, 0, 2))


def test_concat_joins_in_order():
    result = run('bpu.concat', X, X[:, :1], X, dim=1)
    assert np.array_equal(result, np.concatenate([X, X[:, :1], X], 1))


def test_gather_follows_its_indices_exactly():
    indices = np.array([[[2, 0, 1, 2]], [[0, 0, 2, 1]]], np.int32)
    assert np.array_equal(run('bpu.gather', X, indices, dim=1),
                          np.take_along_axis(X, indices.astype(np.int64), 1))


@pytest.mark.parametrize('index', [-1, 3])
def test_gather_refuses_an_index_outside(index):
    with pytest.raises(BpuError, match=r'leave \[0, 2\]'):
        run('bpu.gather', X, np.full((2, 1, 4), index, np.int32), dim=1)


def test_where_fills_and_broadcasts_its_mask():
    mask = np.array([[True], [False], [True]])
    assert np.array_equal(run('bpu.where', mask, X, fill=-32768), np.where(mask, -32768, X))


@pytest.mark.parametrize('dtype', [np.int8, np.int16])
def test_where_takes_another_tensor_where_its_mask_is_set(dtype):
    mask = np.array([[True], [False], [True]])
    other = X[::-1].astype(dtype)
    result = run('bpu.where', mask, X.astype(dtype), other.copy())
    assert result.numpy().dtype == dtype
    assert np.array_equal(result, np.where(mask, other, X))
