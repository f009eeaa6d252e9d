"""Floats carry integers exactly up to the recorded bounds, whatever torch's settings are."""
import pytest
import torch
import torch.nn.functional as F

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import carriers
from mmdet_bpu.kernels.reference.carriers import CARRIERS, check_carriers, exact_float_products


@pytest.mark.parametrize('name', ['float32', 'float64'])
@pytest.mark.parametrize('terms', [1, 7, 64, 1000])
def test_a_sum_at_the_bound_is_exact_and_one_beyond_is_not(name, terms):
    carrier = CARRIERS[name]
    parts = [carrier.bound // terms] * (terms - 1)
    parts.append(carrier.bound - sum(parts) - 1)
    values = torch.tensor(parts, dtype=carrier.dtype)
    ones = torch.ones(terms, 1, dtype=carrier.dtype)
    with exact_float_products():
        assert int((values[None] @ ones).item()) == carrier.bound - 1
    beyond = torch.tensor(carrier.bound + 1, dtype=carrier.dtype)
    assert int(beyond) != carrier.bound + 1


@pytest.mark.parametrize('name', ['select', 'select64'])
def test_selecting_carriers_tell_neighbours_apart(name):
    carrier = CARRIERS[name]
    value = torch.tensor([carrier.bound - 1, carrier.bound], dtype=carrier.dtype)
    assert value[0] < value[1]
    assert carrier.bound >= (2**31 if name == 'select64' else 2**15)


def big_products():
    x = 128 - torch.arange(2 * 64 * 8 * 8).reshape(2, 64, 8, 8).remainder(5).float()
    w = 127 - torch.arange(8 * 64 * 9).reshape(8, 64, 3, 3).remainder(3).float()
    expected = F.conv2d(x.double(), w.double(), padding=1)
    assert expected.max() < 2**24
    return x, w, expected


@pytest.mark.parametrize('shape', [(1, 3, 5, 5), (16, 16, 12, 12), (1, 64, 20, 20)])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_convolutions_of_any_size_are_direct(shape, layout):
    x = torch.randint(-128, 128, shape).float().contiguous(memory_format=layout)
    w = torch.randint(-127, 128, (8, shape[1], 3, 3)).float().contiguous(memory_format=layout)
    with exact_float_products():
        result = F.conv2d(x, w, padding=1)
    assert torch.equal(result.double(), F.conv2d(x.double(), w.double(), padding=1))


def test_autocast_does_not_reach_inside():
    x, w, expected = big_products()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert not torch.equal(F.conv2d(x, w, padding=1).double(), expected)
        with exact_float_products():
            assert torch.equal(F.conv2d(x, w, padding=1).double(), expected)
        assert torch.is_autocast_enabled('cpu')


def test_a_lowered_matmul_precision_is_raised_inside_and_restored():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision('medium')
        lowered = [setting.fp32_precision for setting in carriers.PRECISION_SETTINGS]
        with exact_float_products():
            for setting in carriers.PRECISION_SETTINGS:
                assert setting.fp32_precision in ('none', 'ieee')
        assert [s.fp32_precision for s in carriers.PRECISION_SETTINGS] == lowered
        assert torch.get_float32_matmul_precision() == 'medium'
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_check_passes_here_and_notices_a_lossy_unit(monkeypatch):
    check_carriers.cache_clear()
    check_carriers()
    check_carriers.cache_clear()
    exact_conv = F.conv2d
    monkeypatch.setattr(F, 'conv2d', lambda x, w: exact_conv(x.bfloat16(), w.bfloat16()).to(x))
    with pytest.raises(BpuError, match='conv2d in torch.float32 on cpu'):
        check_carriers()
    check_carriers.cache_clear()
