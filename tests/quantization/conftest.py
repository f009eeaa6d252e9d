"""Detectors for these tests, and the two ways that they compute."""
import pytest

from mmdet_bpu.kernels import compiled_loops
from tests.stock_detectors import (calibrated, detector, execute, losses_of,  # noqa: F401
                                   run_quantized, small_detector, toy)


@pytest.fixture(params=['compiled', 'torch'])
def path(request, monkeypatch):
    """Both ways that values are computed and counted on a CPU."""
    if request.param == 'torch':
        monkeypatch.setattr(compiled_loops, '_switched_off', True)
    elif not compiled_loops.usable():
        pytest.skip('numba is not installed')
    return request.param
