"""Deformable attention in one go: from the values and the grid to the summed samples.

    %v_l = slice, reshape, transpose ...(%values)    (N, H, W, C)      per level l
    %g_l = slice, reshape, transpose ...(%grid)      (N, Q, P, 2)
    %s_l = grid_sample(%v_l, %g_l)                   (N, Q, P, C)
    %s = reshape, transpose, concat ...(%s_1, %s_2, ...)
    %sum = reduce_sum(mul(%s, transpose, ...(%weights)))     over levels and points
    %out = reshape, transpose ...(%sum)

N are heads, Q queries, P points. Movement becomes strides. Where it cannot (heads of several images
are no single stride), or another form differs, the instructions are left as they are.

The name of this module comes before those of the fusers that take single mul and reduce_sum.
"""
from typing import Iterator

import torch

from mmdet_bpu.kernels.compiled_loops import spread
from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast import attention_loop as columns
from mmdet_bpu.kernels.fast.attention_form import Attention, Level, recognise
from mmdet_bpu.kernels.fast.bilinear import axis_numbers
from mmdet_bpu.kernels.fast.strided_views import strides
from mmdet_bpu.kernels.fusion import FusedGroup, FusionView, Into, Tensors
from mmdet_bpu.kernels.reference.requantizer import Requantizer

# Elementary operations of a sample of one channel.
SAMPLE_WORK = 4


@FAST.fuser
def find_attention(fusion: FusionView) -> Iterator[FusedGroup]:
    """Groups of deformable attention; see the module's docstring."""
    for place in sorted(fusion.free):
        if fusion.program.instructions[place].op == 'bpu.reduce_sum':
            found = recognise(fusion, place)
            if found is not None:
                yield fusion.group(found.members, _into(fusion, found))


def _into(fusion: FusionView, attention: Attention) -> Into:
    """The computation of a recognised attention."""
    inputs, _ = fusion.borders(attention.members)
    heads, queries, _, channels = attention.levels[0].out.shape
    table = torch.tensor([_row(level) for level in attention.levels])
    out_offset = attention.levels[0].out.storage_offset()
    out_head, out_query, _, _ = strides(attention.levels[0].out)
    product, total = (int8_scaling(each) for each in (attention.product, attention.total))
    high_words = not attention.product.ties and product[1] >= 17
    names = [(level.value.name, level.grid.name, attention.weights.name)
             for level in attention.levels]
    points = sum(level.out.shape[2] for level in attention.levels)
    work = heads * channels * points * SAMPLE_WORK

    def run(tensors: Tensors, outputs: Tensors) -> None:
        values = dict(zip(inputs, tensors))
        addresses = table.clone()
        for row, read in zip(addresses, names):
            for column, name in zip((columns.VALUE, columns.GRID, columns.WEIGHT), read):
                row[column] += values.get(name, constants.get(name)).data_ptr()
        levels = addresses.numpy()
        out = outputs[0].data_ptr() + out_offset
        spread(lambda first, end: columns.attend(
            first, end, heads, channels, out, out_head, out_query, levels, *product, high_words,
            *total), queries, work)

    constants = {name: fusion.constants[name].contiguous()
                 for read in names for name in read if name in fusion.constants}
    return run


def _row(level: Level) -> list[int]:
    """A level's row of the table, addresses still without that of the tensor."""
    _, height, width, _ = level.value.view.shape
    head, y, x, _ = level.value.strides
    item = torch.int16.itemsize
    grid = [level.grid.offset * item, *(stride * item for stride in level.grid.strides)]
    weight = [level.weight.storage_offset(), *strides(level.weight)[:3]]
    return [level.value.offset, head, y, x, *grid, *weight, level.out.shape[2],
            level.plan.bits, *axis_numbers(level.plan, 0, width),
            *axis_numbers(level.plan, 1, height)]


def int8_scaling(requantizer: Requantizer) -> tuple[int, int]:
    """Multiplier and shift, 1 to 30, that give the same int8 result of inputs up to 2**15.

    A product has less than 31 bits: shifted by more, it is 0. The least multiplier is 2**14: what
    is not 0 saturates without being shifted to the left.
    """
    multiplier, shift = int(requantizer.multiplier[0]), int(requantizer.shift[0])
    return (0, 1) if shift > 30 else (multiplier, max(shift, 1))
