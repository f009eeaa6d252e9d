"""Toys for these tests."""
from tests.stock_detectors import toy  # noqa: F401
