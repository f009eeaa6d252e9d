"""Overflow bounds of conv2d and linear, and what follows their products."""
from typing import Union

import numpy as np
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference.blocks import for_each_block, row_blocks
from mmdet_bpu.kernels.reference.requantizer import Requantizer, output_limits
from mmdet_bpu.program.dtypes import (INT32_MAX, INTEGER_RANGES, TORCH_DTYPES,
                                      largest_magnitude)
from mmdet_bpu.program.integer_rules import accumulator_bounds as channel_bounds
from mmdet_bpu.program.integer_rules import product_fault
from mmdet_bpu.program.numerics import Operand

Tensors = list[torch.Tensor]


def weight_magnitudes(weight: torch.Tensor) -> np.ndarray:
    """``sum |w|`` of each output channel of a weight (O, ...), as int64."""
    values = weight.cpu().flatten(1).numpy()
    # The magnitude of the lowest integer is one more than the type holds, and fits without a sign.
    magnitudes = np.abs(values).view(f'u{values.itemsize}')
    return magnitudes.sum(1, dtype=np.int64)


def residual_magnitudes(dtype: str, multiplier, shift) -> np.ndarray:
    """Largest magnitude of a rescaled residual, per entry of ``multiplier``, as int64.

    A magnitude beyond 2**62 is given as 2**62.
    """
    largest = largest_magnitude(dtype)
    values = []
    for m, s in zip(np.atleast_1d(multiplier).tolist(), np.atleast_1d(shift).tolist()):
        product = largest * m
        values.append((product >> s) + 1 if s > 0 else min(product << min(-s, 64), 2**62))
    return np.asarray(values, np.int64)


def accumulator_bounds(weight: torch.Tensor, bias: torch.Tensor, input_dtype: str) -> np.ndarray:
    """Largest magnitude of ``conv + bias`` per output channel, shape (O,), as int64.

    The converter enlarges the weight scale of a channel whose bound exceeds 2**31 - 1.
    """
    return channel_bounds(weight_magnitudes(weight), largest_magnitude(input_dtype),
                          bias.to(torch.int64).cpu().numpy())


class Epilogue:
    """What follows the products of conv2d and linear: bias, residual, relu, requantization.

    Args:
        operands (list[Operand]): input, weight, bias and optionally residual.
        attrs (dict): Attributes of the instruction.
        bias_carried (bool): The products already hold the bias.
        op (str): Name for messages.

    Raises:
        BpuError: for si16 x si16, or if an accumulator or a residual may leave int32.
    """

    def __init__(self, operands: list[Operand], attrs: dict, bias_carried: bool, op: str):
        weight, bias = operands[1].constant, operands[2].constant
        fault = product_fault(operands[0].dtype, operands[1].dtype)
        if fault:
            raise BpuError(f'{op} {fault}')
        bounds = accumulator_bounds(weight, bias, operands[0].dtype)
        self.bias = None if bias_carried or not bias.any() else bias.to(torch.int32)
        self.residual = None
        if len(operands) > 3:
            multiplier, shift = attrs['residual_multiplier'], attrs['residual_shift']
            extra = residual_magnitudes(operands[3].dtype, multiplier, shift)
            bounds = bounds + extra
            self._refuse_overflow(bounds, op)
            self.residual = Requantizer(multiplier, shift, *INTEGER_RANGES['si32'],
                                        bound=largest_magnitude(operands[3].dtype))
        self._refuse_overflow(bounds, op)
        self.out_dtype = attrs['out_dtypes'][0]
        self.requantizer = Requantizer(
            attrs['multiplier'], attrs['shift'],
            *output_limits(self.out_dtype, attrs.get('relu', False)), bound=bounds)

    @staticmethod
    def _refuse_overflow(bounds: np.ndarray, op: str) -> None:
        worst = int(bounds.argmax())
        if bounds[worst] > INT32_MAX:
            raise BpuError(
                f'{op}: the accumulator of output channel {worst} may reach {int(bounds[worst])}, '
                f'more than int32 holds ({INT32_MAX}): enlarge the weight scale of that channel')

    def finish(self, acc: torch.Tensor, residual: Union[torch.Tensor, None],
               out: torch.Tensor) -> None:
        """Write the results of some rows.

        Args:
            acc (torch.Tensor): int32, shape (rows, O); overwritten.
            residual (torch.Tensor | None): Shape (rows, O).
            out (torch.Tensor): Shape (rows, O).
        """
        if self.bias is not None:
            acc.add_(self.bias)
        if residual is not None:
            acc.add_(self.residual.scale_(residual.to(torch.int32, copy=True)))
        out.copy_(self.requantizer.scale_(acc))

    def __call__(self, products: Tensors, weights: list[int],
                 residual: Union[torch.Tensor, None]) -> torch.Tensor:
        """Join products as ``sum of weight * product`` and finish them in chunks.

        Args:
            products (list[torch.Tensor]): Exact integers in any format, each (..., O).
            weights (list[int]): One factor per product.
            residual (torch.Tensor | None): Shape (..., O).
        """
        channels = products[0].shape[-1]
        rows = [product.reshape(-1, channels) for product in products]
        out = torch.empty(products[0].shape, dtype=TORCH_DTYPES[self.out_dtype],
                          device=rows[0].device)
        target = out.view(-1, channels)
        residual = None if residual is None else residual.reshape(-1, channels)

        def work(part: slice) -> None:
            acc = rows[0][part].to(torch.int32)
            if weights[0] != 1:
                acc.mul_(weights[0])
            for product, weight in zip(rows[1:], weights[1:]):
                acc.add_(product[part].to(torch.int32), alpha=weight)
            self.finish(acc, None if residual is None else residual[part], target[part])

        for_each_block(work, row_blocks(*target.shape), out.device)
        return out
