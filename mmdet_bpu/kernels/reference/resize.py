"""resize in fixed point: exact pixels, integer bilinear weights."""
from dataclasses import dataclass

import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import kernel
from mmdet_bpu.kernels.reference.blocks import for_each_block, row_blocks
from mmdet_bpu.kernels.reference.requantizer import round_shift_
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.resize_positions import axis_positions, check_fractions

Tensors = list[torch.Tensor]
MODES = ('nearest', 'bilinear')


@dataclass(frozen=True)
class AxisPixels:
    """What each result reads along one axis; all of shape (results, ).

    Attributes:
        lower (torch.Tensor): Pixel at or before the position.
        upper (torch.Tensor): The next pixel, the last one again at the end.
        weight (torch.Tensor): Weight of ``upper``, int32; that of ``lower`` is what is left to
            ``2**fraction_bits``.
    """

    lower: torch.Tensor
    upper: torch.Tensor
    weight: torch.Tensor


@dataclass(frozen=True)
class ResizePlan:
    """Pixels and weights of both axes, height first."""

    axes: tuple[AxisPixels, AxisPixels]
    bits: int


def plan_resize(operands: list[Operand], attrs: dict) -> ResizePlan:
    """Compute the positions of a resize.

    Raises:
        BpuError: for values other than si8, an unknown mode, or fractions out of range.
    """
    if operands[0].dtype != 'si8':
        raise BpuError(f'bpu.resize takes si8 values, found {operands[0].dtype}')
    if attrs['mode'] not in MODES:
        raise BpuError(f'bpu.resize: mode must be one of {", ".join(MODES)}, found '
                       f'{attrs["mode"]!r}')
    bits = attrs['fraction_bits'] if attrs['mode'] == 'bilinear' else 0
    check_fractions(attrs['position_bits'], bits)
    axes = []
    for axis, size in enumerate(operands[0].shape[1:3]):
        positions = torch.from_numpy(axis_positions(
            int(attrs['start'][axis]), int(attrs['step'][axis]), int(attrs['size'][axis]),
            attrs['position_bits'], bits, size))
        lower = positions >> bits
        axes.append(AxisPixels(lower, (lower + 1).clamp_(max=size - 1),
                               (positions & (1 << bits) - 1).to(torch.int32)))
    return ResizePlan(tuple(axes), bits)


@kernel('bpu.resize', plan_resize)
def resize(inputs: Tensors, attrs: dict, plan: ResizePlan) -> Tensors:
    """bpu.resize: (N, H, W, C) -> (N, OH, OW, C)."""
    x = inputs[0]
    rows, columns = (AxisPixels(*(t.to(x.device) for t in (axis.lower, axis.upper, axis.weight)))
                     for axis in plan.axes)
    if not plan.bits:
        return [x[:, rows.lower][:, :, columns.lower].contiguous()]
    out = torch.empty((len(x), len(rows.lower), len(columns.lower), x.shape[-1]), dtype=x.dtype,
                      device=x.device)

    def work(part: slice) -> None:
        lower, upper = (x[:, index[part]].to(torch.int32) for index in (rows.lower, rows.upper))
        mixed = _mix(lower, upper, rows.weight[part].view(-1, 1, 1), plan.bits)
        total = _mix(mixed[:, :, columns.lower], mixed[:, :, columns.upper],
                     columns.weight.view(-1, 1), plan.bits)
        # A mean of si8 values: it cannot leave their range.
        out[:, part] = round_shift_(total, 2 * plan.bits).to(out.dtype)

    for_each_block(work, row_blocks(len(rows.lower), out[:, :1].numel()), x.device)
    return [out]


def _mix(lower: torch.Tensor, upper: torch.Tensor, weight: torch.Tensor, bits: int
         ) -> torch.Tensor:
    """``lower * (2**bits - weight) + upper * weight``: at most 2**bits times the larger one."""
    return (lower << bits).add_((upper - lower).mul_(weight))
