"""Checkpoints of two trainings that did the same."""
import torch

from mmdet_bpu.engine.weights import read_checkpoint


def assert_same_weights(first, second, parts=('state_dict', )):
    """Files whose parts are equal bit for bit; on CUDA, close.

    Gradients of sampled points are added up in any order there.
    """
    first, second = (read_checkpoint(str(path)) for path in (first, second))
    for part in parts:
        assert list(first[part]) == list(second[part])
        if torch.cuda.is_available():
            torch.testing.assert_close(first[part], second[part], rtol=1e-3, atol=1e-3)
        else:
            assert not [name for name, value in first[part].items()
                        if not torch.equal(second[part][name], value)], part
