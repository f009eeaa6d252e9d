"""Constants and operands of integer products as their compiled loops take them."""
from typing import Optional

import numpy as np
import torch

from mmdet_bpu.kernels.fast.product_finish import GROUP
from mmdet_bpu.kernels.fast.requantize import ScaleConstants
from mmdet_bpu.kernels.reference.requantizer import Requantizer

NO_SCALES = np.zeros((0, 3, GROUP), np.int32), np.zeros(3, np.int32)
# Multiplications of a product that take as long as one elementary operation.
MULTIPLICATIONS = 16


def by_parts(constants: np.ndarray, groups: int) -> np.ndarray:
    """Numbers (O) as (groups, parts * GROUP), each group filled up with 0."""
    columns = len(constants) // groups
    parts = np.zeros((groups, -(-columns // GROUP) * GROUP), np.int32)
    parts[:, :columns] = constants.reshape(groups, columns)
    return parts


def column_scales(requantizer: Requantizer, channels: int, groups: int
                  ) -> tuple[np.ndarray, np.ndarray]:
    """Constants (groups * parts of GROUP columns, 3, GROUP), and mode, low and high."""
    constants = ScaleConstants.of(requantizer)
    rows = [by_parts(np.broadcast_to(each, channels), groups).reshape(-1, GROUP)
            for each in (constants.multiplier, constants.shift, constants.half)]
    return (np.stack(rows, 1),
            np.array([constants.mode, constants.low, constants.high], np.int32))


def place_of(tensor: Optional[torch.Tensor]) -> tuple[int, int]:
    """Address and bytes of an element; zeros for none."""
    return (0, 0) if tensor is None else (tensor.data_ptr(), tensor.element_size())
