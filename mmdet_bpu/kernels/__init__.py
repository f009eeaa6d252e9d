"""Kernel sets: how each integer operation is computed."""
