"""Integers of picture values."""
from typing import Any, Dict

import numpy as np


def levels_of(values: np.ndarray, stage: Dict[str, Any], scale: float) -> np.ndarray:
    """Integers of picture values, per channel: ``clamp(rhe((value - mean) / std / scale))``.

    All in float32: the order of these operations is part of the contract.

    Args:
        values (np.ndarray): (N, channels), 0 to 255.
        stage (dict): ``preprocessing`` of the contract.
        scale (float): Scale of the network's input.

    Returns:
        np.ndarray: (N, channels) int8.
    """
    mean, std = np.float32(stage['mean']), np.float32(stage['std'])
    levels = np.rint((np.float32(values) - mean) / std / np.float32(scale))
    return np.clip(levels, -128, 127).astype(np.int8)


def level_table(stage: Dict[str, Any], scale: float) -> np.ndarray:
    """The integer of each of the 256 values of each channel.

    Args:
        stage (dict): ``preprocessing`` of the contract.
        scale (float): Scale of the network's input.

    Returns:
        np.ndarray: (256, channels) int8.
    """
    return levels_of(np.arange(256)[:, None].repeat(len(stage['mean']), 1), stage, scale)
