"""Toys for these tests."""
from tests.stock_detectors import calibrated, execute, through, toy  # noqa: F401
