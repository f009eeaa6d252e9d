"""Detectors for these tests."""
from tests.stock_detectors import execute, toy  # noqa: F401
from tests.stock_families import new_stock, picture, stock  # noqa: F401
