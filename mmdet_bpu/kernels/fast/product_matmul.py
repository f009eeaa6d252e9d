"""bpu.matmul on the processor's integer unit: the right side is packed in every run."""
import math
from typing import Optional

import numpy as np
from numba import types

from mmdet_bpu.kernels.compiled_loops import compiled
from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast.memory import int8_at, int16_at
from mmdet_bpu.kernels.fast.product_finish import COLUMNS, GROUP
from mmdet_bpu.kernels.fast.product_loops import Window, product
from mmdet_bpu.kernels.fast.product_operands import NO_SCALES, column_scales
from mmdet_bpu.kernels.fast.products import unit_is_exact
from mmdet_bpu.kernels.kernel_set import Into, Tensors
from mmdet_bpu.kernels.reference import REFERENCE
from mmdet_bpu.program.numerics import Operand

DEPTH = 2  # of int16: what one side gains from int8 units, packing the other one would lose
INT = types.intp


@compiled(types.void(INT, INT, INT, INT, INT, INT, types.int16[:, :, :, :, ::1]))
def pack_columns(start, stop, source, source_bytes, depth, columns, panels):
    """Matrices ``start`` to ``stop`` of (N, depth, columns) into panels (N, P, words, COLUMNS, 2).

    What the panels hold beyond the matrices is left as it is.
    """
    for matrix in range(start, stop):
        for row in range(depth):
            place = (matrix * depth + row) * columns
            for panel in range(panels.shape[1]):
                first = panel * COLUMNS
                width = min(COLUMNS, columns - first)
                target = panels[matrix, panel, row // DEPTH]
                if source_bytes == 1:
                    narrow = int8_at(source + place + first, width)
                    for i in range(width):
                        target[i, row % DEPTH] = narrow[i]
                else:
                    wide = int16_at(source + 2 * (place + first), width)
                    for i in range(width):
                        target[i, row % DEPTH] = wide[i]


@FAST.into('bpu.matmul')
def matmul(operands: list[Operand], attrs: dict) -> Optional[Into]:
    """(..., M, K) x (..., K, N) -> (..., M, N); None where a sum might leave int32."""
    plan = REFERENCE.kernels['bpu.matmul'].planner(operands, attrs)
    batch = operands[0].shape[:-2]
    if not plan.proved or operands[1].shape[:-2] != batch or not unit_is_exact():
        return None
    (rows, depth), columns = operands[0].shape[-2:], operands[1].shape[-1]
    matrices = math.prod(batch)
    panels = np.zeros((matrices, -(-columns // COLUMNS), -(-depth // DEPTH), COLUMNS, DEPTH),
                      np.int16)
    words = panels.view(np.int32)[..., 0]
    window = Window(1, 1, depth, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, depth, 1)
    scales = column_scales(plan.requantizer, columns, 1)
    start = np.zeros((1, len(scales[0]) * GROUP), np.int32)

    def into(inputs: Tensors, outputs: Tensors) -> None:
        lhs, rhs, out = inputs[0], inputs[1], outputs[0]
        pack_columns(matrices, rhs.data_ptr(), rhs.element_size(), depth, columns, panels,
                     work=depth * columns)
        for matrix in range(matrices):
            product(rows, rows, False,
                    lhs.data_ptr() + matrix * rows * depth * lhs.element_size(),
                    lhs.element_size(), window, words[matrix:matrix + 1], DEPTH, columns, start,
                    *scales, 0, 0, *NO_SCALES,
                    out.data_ptr() + matrix * rows * columns * out.element_size(),
                    out.element_size(), work=max(1, depth * columns // 16))

    return into
