"""Deformable convolution: samples in fixed point, then an integer product."""
from math import prod
from typing import Union

import torch
import torch.nn.functional as F

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import kernel
from mmdet_bpu.kernels.reference.blocks import BLOCK, for_each_block, row_blocks
from mmdet_bpu.kernels.reference.carriers import (CARRIERS, check_carriers,
                                                  exact_float_products)
from mmdet_bpu.kernels.reference.epilogue import weight_magnitudes
from mmdet_bpu.kernels.reference.products import PRODUCT_BLOCK
from mmdet_bpu.kernels.reference.requantizer import Requantizer, output_limits, round_shift_
from mmdet_bpu.kernels.reference.sampling import neighbours
from mmdet_bpu.program.deformable_samples import (FRACTION_RANGE, largest_sample, sample_range,
                                                  sample_shift)
from mmdet_bpu.program.dtypes import INT32_MAX, TORCH_DTYPES, largest_magnitude
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.sampling_grid import POSITION_LIMIT

Tensors = list[torch.Tensor]


class DeformPlan:
    """Positions, samples and product of a deformable convolution, and their carriers.

    Attributes:
        image_carrier (str): Of the weighted sum of four pixels.
        carrier (str): Of the product.
        weight (torch.Tensor): (groups, KH * KW * C / groups, O / groups) in the carrier's format.

    Raises:
        BpuError: for types or bits that the op does not have, or if a position or an accumulator
            may leave int32.
    """

    def __init__(self, operands: list[Operand], attrs: dict):
        image, weight, bias, offset = operands[:4]
        self.masked = len(operands) > 4
        self._check_types(operands)
        for name, allowed in (('fraction_bits', FRACTION_RANGE),
                              ('sample_bits', sample_range(attrs['fraction_bits']))):
            if attrs[name] not in allowed:
                raise BpuError(f'bpu.deform_conv2d: {name} must be in [{allowed[0]}, '
                               f'{allowed[-1]}], found {attrs[name]}')
        self.bits, self.offset_groups = attrs['fraction_bits'], attrs['offset_groups']
        self.shift = sample_shift(self.bits, attrs['sample_bits'], self.masked)
        self.kernel, self.size = weight.shape[1:3], offset.shape[1:3]
        self.geometry = list(zip(attrs['stride'], attrs['pad'], attrs['dilation']))
        self._check_positions(image.shape[1:3])
        self.positions = Requantizer(attrs['offset_multiplier'], attrs['offset_shift'],
                                     -POSITION_LIMIT, POSITION_LIMIT, bound=2**15)
        float32 = CARRIERS['float32'].bound
        sum_bound = largest_magnitude(image.dtype) << 2 * self.bits
        self.image_carrier = 'float32' if sum_bound <= float32 else 'float64'
        # Times a mask, the sum of si16 pixels has up to 39 bits.
        wide = self.masked and image.dtype == 'si16'
        self.sample_dtype = torch.int64 if wide else torch.int32
        magnitudes = weight_magnitudes(weight.constant) * largest_sample(
            image.dtype, attrs['sample_bits'])
        bounds = magnitudes + bias.constant.to(torch.int64).abs().cpu().numpy()
        worst = int(bounds.argmax())
        if bounds[worst] > INT32_MAX:
            raise BpuError(
                f'bpu.deform_conv2d: the accumulator of output channel {worst} may reach '
                f'{int(bounds[worst])}, more than int32 holds ({INT32_MAX}): take fewer '
                'sample_bits, or enlarge the weight scale of that channel')
        self.carrier = 'float32' if magnitudes.max() <= float32 else 'float64'
        groups = attrs['groups']
        parts = weight.constant.unflatten(0, (groups, -1)).flatten(2).transpose(1, 2)
        self.weight = parts.to(CARRIERS[self.carrier].dtype).contiguous()
        self.bias = bias.constant.to(torch.int32)
        self.out_dtype = attrs['out_dtypes'][0]
        self.requantizer = Requantizer(
            attrs['multiplier'], attrs['shift'],
            *output_limits(self.out_dtype, attrs.get('relu', False)), bound=bounds)

    def _check_types(self, operands: list[Operand]) -> None:
        found = [operand.dtype for operand in operands]
        expected = ['si8', 'si8', 'si32', 'si16', 'si8'][:len(found)]
        if found[0] not in ('si8', 'si16') or found[1:] != expected[1:]:
            raise BpuError(f'bpu.deform_conv2d takes {", ".join(expected)} (the first may be '
                           f'si16), found {", ".join(found)}')

    def _check_positions(self, image_size: tuple[int, ...]) -> None:
        """Offsets saturate at 30 bits: what they are added to must be far from that."""
        for size, count, taps, (stride, pad, dilation) in zip(image_size, self.size, self.kernel,
                                                              self.geometry):
            reach = max(size, abs(pad) + count * stride + taps * dilation)
            if reach << self.bits > POSITION_LIMIT // 4:
                raise BpuError(f'bpu.deform_conv2d: {reach} px with {self.bits} fraction bits do '
                               'not fit 30 bits: use fewer fraction bits')

    def corners(self, offset: torch.Tensor, output: torch.Tensor, axis: int, size: int) -> tuple:
        """Both pixels along one axis and their weights; see :func:`sampling.neighbours`.

        Args:
            offset (torch.Tensor): int16, (rows, taps, offset groups).
            output (torch.Tensor): int32, (rows, ), position of each row in the result.
            axis (int): 0 for y, 1 for x.
            size (int): Image extent in px.
        """
        stride, pad, dilation = self.geometry[axis]
        taps = torch.arange(self.kernel[axis], dtype=torch.int32, device=offset.device)
        taps = taps.repeat_interleave(self.kernel[1]) if axis == 0 else taps.repeat(self.kernel[0])
        anchors = output[:, None] * stride - pad + taps * dilation
        position = self.positions.scale_(offset.to(torch.int32, copy=True)).to(torch.int32)
        position.add_((anchors << self.bits)[..., None])
        # At and beyond these ends the samples are 0.
        torch.clamp(position, -1 << self.bits, size << self.bits, out=position)
        return neighbours(position, size, self.bits)

    def samples(self, table: torch.Tensor, image: tuple[int, ...], offset: torch.Tensor,
                mask: Union[torch.Tensor, None], start: int) -> torch.Tensor:
        """Samples of some positions of the result, (rows, taps, C), as integers.

        Args:
            table (torch.Tensor): Pixels of each offset group, (N * H * W * groups, C / groups), in
                the carrier's format.
            image (tuple[int, ...]): (N, H, W, C).
            offset (torch.Tensor): (rows, groups * taps * 2).
            mask (torch.Tensor | None): (rows, groups * taps).
            start (int): First row.
        """
        groups, taps = self.offset_groups, prod(self.kernel)
        rows = len(offset)
        output = torch.arange(start, start + rows, dtype=torch.int32, device=offset.device)
        height, width = self.size
        # (rows, taps, groups): the order of the result's channels.
        offset = offset.view(rows, groups, taps, 2).transpose(1, 2)
        y0, y1, wy0, wy1 = self.corners(offset[..., 0], output // width % height, 0, image[1])
        x0, x1, wx0, wx1 = self.corners(offset[..., 1], output % width, 1, image[2])
        first = (output // (height * width) * image[1])[:, None, None]
        y0, y1 = ((y + first) * image[2] for y in (y0, y1))
        pixels = torch.stack((y0 + x0, y0 + x1, y1 + x0, y1 + x1), -1)
        group = torch.arange(groups, dtype=torch.int32, device=offset.device)[:, None]
        weights = torch.stack((wy0 * wx0, wy0 * wx1, wy1 * wx0, wy1 * wx1), -1)
        total = F.embedding_bag(
            (pixels * groups + group).view(-1, 4), table, mode='sum',
            per_sample_weights=weights.view(-1, 4).to(table.dtype)).to(self.sample_dtype)
        if mask is not None:
            total.mul_(mask.view(rows, groups, taps).transpose(1, 2).reshape(-1, 1))
        return round_shift_(total, self.shift).view(rows, taps, image[3])

    def product(self, samples: torch.Tensor) -> torch.Tensor:
        """Accumulators (rows, O) in int32 of samples (rows, taps, C)."""
        rows, groups = len(samples), len(self.weight)
        factors = samples.to(self.weight.dtype).unflatten(-1, (groups, -1))
        factors = factors.permute(2, 0, 1, 3).flatten(2)
        acc = (factors @ self.weight).transpose(0, 1).reshape(rows, -1)
        return acc.to(torch.int32).add_(self.bias)


def plan_deform_conv2d(operands: list[Operand], attrs: dict) -> DeformPlan:
    """Plan of bpu.deform_conv2d."""
    return DeformPlan(operands, attrs)


@kernel('bpu.deform_conv2d', plan_deform_conv2d, probe=check_carriers, constants=(1, 2))
def deform_conv2d(inputs: Tensors, attrs: dict, plan: DeformPlan) -> Tensors:
    """bpu.deform_conv2d: input, weight, bias, offset [, mask] -> (N, OH, OW, O)."""
    image, offset = inputs[0], inputs[3].flatten(0, 2)
    mask = inputs[4].flatten(0, 2) if plan.masked else None
    channels = image.shape[-1]
    table = image.reshape(-1, channels // plan.offset_groups).to(
        CARRIERS[plan.image_carrier].dtype)
    out = torch.empty((*inputs[3].shape[:3], len(inputs[1])), dtype=TORCH_DTYPES[plan.out_dtype],
                      device=image.device)
    target = out.view(-1, out.shape[-1])

    def work(part: slice) -> None:
        samples = plan.samples(table, tuple(image.shape), offset[part],
                               None if mask is None else mask[part], part.start)
        target[part].copy_(plan.requantizer.scale_(plan.product(samples)))

    with exact_float_products():
        for_each_block(work, row_blocks(len(offset), prod(plan.kernel) * channels, PRODUCT_BLOCK,
                                        spread=BLOCK), image.device)
    return [out]
