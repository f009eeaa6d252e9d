"""Checkpoint contents become plain data and come back."""
import io
from collections import Counter, OrderedDict, deque

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmdet_bpu.engine.plain_data import from_plain, to_plain
from mmdet_bpu.errors import BpuError


def through_a_file(value):
    """Save as a checkpoint is saved, load as torch loads by default."""
    file = io.BytesIO()
    torch.save(to_plain(value), file)
    file.seek(0)
    return from_plain(torch.load(file, weights_only=True))


@pytest.mark.parametrize('value', [
    np.arange(6, dtype=np.uint16).reshape(2, 3), np.float64(2.5), np.array(['a', 'bc']),
    np.zeros((0, 4)), np.array([True, False])])
def test_numpy_data_survive(value):
    result = through_a_file(dict(value=value))['value']
    assert np.array_equal(result, value)
    assert np.asarray(result).dtype == np.asarray(value).dtype


def test_log_buffers_survive():
    buffer = HistoryBuffer([1.5, 2.5], [1, 2], max_length=7)
    result = through_a_file([buffer])[0]
    assert isinstance(result, HistoryBuffer) and result.max_length == 7
    assert result.mean() == buffer.mean()
    result.update(1.0)
    assert result.current() == 1.0


@pytest.mark.parametrize('value', [
    Counter({40: 1}), {1, 2}, frozenset('ab'), deque([1, 2]), (1, [2, dict(a=(3, ))]),
    OrderedDict(b=1, a=2)])
def test_containers_keep_their_type(value):
    result = through_a_file(value)
    assert result == value and type(result) is type(value)


def test_a_config_dict_becomes_a_dict():
    assert through_a_file(ConfigDict(a=dict(b=1))) == dict(a=dict(b=1))


def test_versions_in_a_state_dict_survive():
    state = torch.nn.BatchNorm2d(2).state_dict()
    assert through_a_file(state)._metadata == state._metadata


def test_what_has_no_plain_form_is_refused_with_its_place():
    with pytest.raises(BpuError, match=r"checkpoint\['a'\]\[1\] holds a .*Linear"):
        to_plain(dict(a=[0, torch.nn.Linear(1, 1)]))
