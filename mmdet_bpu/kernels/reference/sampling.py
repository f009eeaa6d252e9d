"""grid_sample in fixed point: exact indices, integer bilinear weights."""
import torch
import torch.nn.functional as F

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import kernel
from mmdet_bpu.kernels.reference.blocks import for_each_block, row_blocks
from mmdet_bpu.kernels.reference.carriers import (CARRIERS, check_carriers,
                                                    exact_float_products)
from mmdet_bpu.kernels.reference.requantizer import Requantizer, round_shift_
from mmdet_bpu.program.integer_rules import padding_fault
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.sampling_grid import POSITION_LIMIT, check_fraction_bits

Tensors = list[torch.Tensor]
# What a point takes of a block: its indices and weights, 4 each.
POINT_ELEMENTS = 8


class SamplePlan:
    """Position arithmetic of both axes and the carrier of the weighted sum.

    Raises:
        BpuError: for types other than si8 values and an si16 grid, or an unknown padding.
    """

    def __init__(self, operands: list[Operand], attrs: dict):
        if (operands[0].dtype, operands[1].dtype) != ('si8', 'si16'):
            raise BpuError('bpu.grid_sample takes si8 values and an si16 grid, found '
                           f'{operands[0].dtype} and {operands[1].dtype}')
        fault = padding_fault(attrs['padding'])
        if fault:
            raise BpuError(f'bpu.grid_sample: {fault}')
        self.bits = attrs['fraction_bits']
        check_fraction_bits(self.bits)
        self.axes = [Requantizer(attrs[f'{axis}_multiplier'], attrs[f'{axis}_shift'],
                                 -POSITION_LIMIT, POSITION_LIMIT, bound=2**15)
                     for axis in 'xy']
        self.offsets = [int(attrs[f'{axis}_offset']) for axis in 'xy']
        largest = 128 << 2 * self.bits
        self.carrier = 'float32' if largest <= CARRIERS['float32'].bound else 'float64'
        self.border = attrs['padding'] == 'border'

    def corners(self, grid: torch.Tensor, axis: int, size: int) -> tuple:
        """Lower corner, upper corner and their weights along one axis.

        Args:
            grid (torch.Tensor): One int16 coordinate per point.
            axis (int): 0 for x, 1 for y.
            size (int): Image extent in px.

        Returns:
            tuple: Indices (clamped into the image) and weights of 2**fraction_bits in sum; the
            weight of a corner outside the image is 0.
        """
        position = self.axes[axis].scale_(grid.to(torch.int32, copy=True)).to(torch.int32)
        position.add_(self.offsets[axis])
        one = 1 << self.bits
        # At and beyond these ends the result is constant, so the clamp does not change it.
        low, high = (0, (size - 1) * one) if self.border else (-one, size * one)
        torch.clamp(position, low, high, out=position)
        return neighbours(position, size, self.bits)


def neighbours(position: torch.Tensor, size: int, bits: int) -> tuple:
    """Lower and upper pixel of positions along one axis, and their weights.

    Args:
        position (torch.Tensor): int32, in units of 2**-bits px, from -1 px to ``size`` px;
            overwritten.
        size (int): Image extent in px.
        bits (int): Fraction bits.

    Returns:
        tuple: Indices (clamped into the image) and weights of 2**bits in sum; the weight of a pixel
        outside the image is 0.
    """
    lower = position >> bits
    upper_weight = position.bitwise_and_((1 << bits) - 1)
    lower_weight = (1 << bits) - upper_weight
    upper = lower + 1
    lower_weight.mul_((lower >= 0) & (lower < size))
    upper_weight.mul_(upper < size)
    return lower.clamp_(0, size - 1), upper.clamp_(0, size - 1), lower_weight, upper_weight


def plan_grid_sample(operands: list[Operand], attrs: dict) -> SamplePlan:
    """Plan of bpu.grid_sample."""
    return SamplePlan(operands, attrs)


@kernel('bpu.grid_sample', plan_grid_sample, probe=check_carriers)
def grid_sample(inputs: Tensors, attrs: dict, plan: SamplePlan) -> Tensors:
    """bpu.grid_sample: values (N, H, W, C), grid (N, OH, OW, 2) -> (N, OH, OW, C)."""
    values, grid = inputs
    batch, height, width, channels = values.shape
    dtype = CARRIERS[plan.carrier].dtype
    table = values.reshape(-1, channels).to(dtype)
    points = grid.reshape(-1, 2)
    out = torch.empty((*grid.shape[:3], channels), dtype=torch.int8, device=values.device)
    target = out.view(-1, channels)
    per_image = max(1, len(points) // max(batch, 1))

    def work(block: slice) -> None:
        part = points[block]
        start, stop = block.start, block.start + len(part)
        x0, x1, wx0, wx1 = plan.corners(part[:, 0], 0, width)
        y0, y1, wy0, wy1 = plan.corners(part[:, 1], 1, height)
        if batch > 1:
            image = torch.arange(start, stop, dtype=torch.int32, device=values.device)
            first_row = image.div_(per_image, rounding_mode='floor').mul_(height)
            y0.add_(first_row)
            y1.add_(first_row)
        y0.mul_(width)
        y1.mul_(width)
        rows = torch.stack((y0 + x0, y0 + x1, y1 + x0, y1 + x1), 1)
        weights = torch.stack((wy0 * wx0, wy0 * wx1, wy1 * wx0, wy1 * wx1), 1)
        total = F.embedding_bag(rows, table, mode='sum',
                                per_sample_weights=weights.to(dtype))
        # Weights are at most 2**(2 * bits) in sum: the result cannot leave si8.
        target[start:stop].copy_(round_shift_(total.to(torch.int32), 2 * plan.bits))

    with exact_float_products():
        for_each_block(work, row_blocks(len(points), POINT_ELEMENTS), values.device)
    return [out]
