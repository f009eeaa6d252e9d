"""Average pooling in whole windows gives what torch's own gives, whatever its arguments."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from mmdet_bpu.graph.decompositions import DECOMPOSITIONS
from mmdet_bpu.graph.open_pooling import cuts_windows, open_avg_pool2d
from mmdet_bpu.quantization import model_report, prepare

POOL = F.avg_pool2d


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_open_form_equals_torch(data):
    size = [data.draw(st.integers(2, 11)) for _ in range(2)]
    kernel = [data.draw(st.integers(1, 5)) for _ in range(2)]
    padding = [data.draw(st.integers(0, k // 2)) for k in kernel]
    assume(all(n + 2 * p >= k for n, p, k in zip(size, padding, kernel)))
    arguments = dict(kernel_size=kernel, stride=[data.draw(st.integers(1, 4)) for _ in range(2)],
                     padding=padding, ceil_mode=data.draw(st.booleans()),
                     count_include_pad=data.draw(st.booleans()),
                     divisor_override=data.draw(st.sampled_from([None, None, 3])))
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(open_avg_pool2d(x, **arguments), POOL(x, **arguments))


@pytest.mark.parametrize('size, arguments, cut', [
    ((8, 8), dict(kernel_size=2), False),
    ((8, 9), dict(kernel_size=2), False),
    ((8, 9), dict(kernel_size=2, ceil_mode=True), True),
    ((8, 8), dict(kernel_size=2, ceil_mode=True, count_include_pad=False), False),
    ((8, 8), dict(kernel_size=3, stride=2, padding=1), False),
    ((8, 8), dict(kernel_size=3, stride=2, padding=1, count_include_pad=False), True),
    ((8, 8), dict(kernel_size=2, divisor_override=3), True),
    ((2, 8), dict(kernel_size=3, stride=1, padding=1, count_include_pad=False), True),
], ids=str)
def test_only_windows_that_are_cut_are_opened(size, arguments, cut):
    assert cuts_windows(torch.zeros(1, 1, *size), **arguments) is cut


def test_every_window_of_an_open_pool_is_whole(monkeypatch):
    """What is left of ceil_mode, padding and divisors is no argument of a pool."""
    calls = []

    def pool(x, kernel, stride):
        calls.append(kernel)
        assert all((n - k) % s == 0 or k < n for n, k, s in zip(x.shape[2:], kernel, stride))
        return POOL(x, kernel, stride)

    monkeypatch.setattr(F, 'avg_pool2d', pool)
    open_avg_pool2d(torch.randn(1, 1, 7, 9), 3, 2, 1, True, False)
    assert sorted(set(calls)) == [(2, 2), (2, 3), (3, 2), (3, 3)]


def test_a_pool_that_is_opened_stays_a_key_of_the_decompositions():
    assert DECOMPOSITIONS[F.avg_pool2d] is open_avg_pool2d


def test_pools_are_int8_inside(toy):
    model = prepare(toy(lambda self, x: self.out(F.avg_pool2d(x.exp(), 3, 2, 1, False, False)),
                        out=nn.Conv2d(3, 2, 3, padding=1)), dict(input_shape=(7, 9)))
    rows = [row for row in model_report(model) if 'avg_pool2d' in row['site']]
    assert len(rows) == 9 and {row['dtype'] for row in rows} == {'int8'}
    assert len({row['quantizer'] for row in rows}) == 1, 'the parts share a scale'
