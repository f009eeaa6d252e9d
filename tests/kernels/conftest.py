"""Integer programs for these tests."""
from tests.integer_programs import detector, maker  # noqa: F401
