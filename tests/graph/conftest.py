"""Detectors for these tests."""
from tests.stock_detectors import (calibrated, detector, execute, losses_of,  # noqa: F401
                                   run_quantized, small_detector, through, toy)
