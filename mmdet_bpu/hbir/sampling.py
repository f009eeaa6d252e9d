"""grid_sample in fixed point: exact indices, integer bilinear weights."""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.blocks import for_each_block, row_blocks
from mmdet_bpu.hbir.carriers import CARRIERS, exact_float_products
from mmdet_bpu.hbir.numerics import Operand, quantize_multiplier
from mmdet_bpu.hbir.requantizer import Requantizer, round_shift_

Tensors = list[torch.Tensor]
# 1/256 px: with it, 128 * 2**(2 * 8) = 2**23 keeps the weighted sum within the float32 carrier.
FRACTION_BITS = 8
# 128 * 2**(2 * 11) and its rounding term are the largest that fit an int32 accumulator.
MAX_FRACTION_BITS = 11
POSITION_LIMIT = 2**30 - 1
# What a point takes of a block: its indices and weights, 4 each.
POINT_ELEMENTS = 8


@dataclass(frozen=True)
class AxisSampling:
    """How one grid coordinate becomes a fixed-point position.

    Attributes:
        multiplier (int): Of ``p = round_half_even(g * multiplier / 2**shift) + offset``.
        shift (int): See multiplier.
        offset (int): Position of the grid's 0, in 2**-fraction_bits px.
        max_error (float): Largest distance to the real position inside the image, in px.
    """

    multiplier: int
    shift: int
    offset: int
    max_error: float


def axis_sampling(size: int, grid_scale: float, fraction_bits: int = FRACTION_BITS
                  ) -> AxisSampling:
    """Fixed-point form of ``x = ((g * grid_scale + 1) * size - 1) / 2`` (align_corners=False).

    Args:
        size (int): Extent of the image along the axis, in px.
        grid_scale (float): Scale of the int16 grid.
        fraction_bits (int): Fractional bits of a position, 1 to 11.

    Raises:
        BpuError: if the position does not fit 30 bits or fraction_bits is out of range.
    """
    _check_fraction_bits(fraction_bits)
    if size << fraction_bits > POSITION_LIMIT // 4:
        raise BpuError(f'bpu.grid_sample: {size} px with {fraction_bits} fraction bits do not '
                       'fit 30 bits: use fewer fraction bits')
    real = float(grid_scale) * size / 2 * 2**fraction_bits
    multiplier, shift = quantize_multiplier(real)
    relative = abs(math.ldexp(multiplier, -shift) / real - 1) if real else 0.0
    # Inside the image |g * grid_scale| * size / 2 <= size / 2 + 1/2.
    max_error = relative * (size + 1) / 2 + 2.0**-(fraction_bits + 1)
    return AxisSampling(multiplier, shift, (size - 1) << fraction_bits - 1, max_error)


def _check_fraction_bits(fraction_bits: int) -> None:
    if not 1 <= fraction_bits <= MAX_FRACTION_BITS:
        raise BpuError(f'bpu.grid_sample: fraction_bits must be in [1, {MAX_FRACTION_BITS}], '
                       f'found {fraction_bits}')


class SamplePlan:
    """Position arithmetic of both axes and the carrier of the weighted sum.

    Raises:
        BpuError: for types other than si8 values and an si16 grid, or an unknown padding.
    """

    def __init__(self, operands: list[Operand], attrs: dict):
        if (operands[0].dtype, operands[1].dtype) != ('si8', 'si16'):
            raise BpuError('bpu.grid_sample takes si8 values and an si16 grid, found '
                           f'{operands[0].dtype} and {operands[1].dtype}')
        if attrs['padding'] not in ('zeros', 'border'):
            raise BpuError('bpu.grid_sample: padding must be "zeros" or "border", found '
                           f'{attrs["padding"]!r}')
        self.bits = attrs['fraction_bits']
        _check_fraction_bits(self.bits)
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
        lower = position >> self.bits
        upper_weight = position.bitwise_and_(one - 1)
        lower_weight = one - upper_weight
        upper = lower + 1
        if not self.border:
            lower_weight.mul_((lower >= 0) & (lower < size))
            upper_weight.mul_(upper < size)
        return (lower.clamp_(0, size - 1), upper.clamp_(0, size - 1),
                lower_weight, upper_weight)


def plan_grid_sample(operands: list[Operand], attrs: dict) -> SamplePlan:
    """Plan of bpu.grid_sample."""
    return SamplePlan(operands, attrs)


def grid_sample(inputs: Tensors, attrs: dict) -> Tensors:
    """bpu.grid_sample: values (N, H, W, C), grid (N, OH, OW, 2) -> (N, OH, OW, C)."""
    plan = attrs.get('plan') or plan_grid_sample([Operand.of(t) for t in inputs], attrs)
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
