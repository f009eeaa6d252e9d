"""Toys for these tests."""
from tests.stock_detectors import calibrated, toy  # noqa: F401
