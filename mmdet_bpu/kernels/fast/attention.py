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
from dataclasses import dataclass
from typing import Iterator, Optional

import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast import attention_loop as columns
from mmdet_bpu.kernels.fast.bilinear import axis_numbers
from mmdet_bpu.kernels.fast.spread import spread
from mmdet_bpu.kernels.fast.strided_views import (Source, View, destination, moved_back, source,
                                                  strides)
from mmdet_bpu.kernels.fusion import FusedGroup, FusionView, Into, Tensors
from mmdet_bpu.kernels.reference import REFERENCE
from mmdet_bpu.kernels.reference.requantizer import Requantizer
from mmdet_bpu.program.numerics import Operand

# Instructions between the samples and the mul, which only say where an element goes.
JOINING = ('bpu.reshape', 'bpu.transpose', 'bpu.concat')
# Elementary operations of a sample of one channel.
SAMPLE_WORK = 4


@dataclass(frozen=True)
class Level:
    """One grid_sample and where its parts lie; views are (N, Q, P, C), but for values and grid.

    Attributes:
        place (int): In the program.
        value (Source): (N, H, W, C).
        grid (Source): (N, Q, P, 2).
        weight (View): In the weights' source.
        out (View): In the result.
    """
    place: int
    value: Source
    grid: Source
    weight: View
    out: View


@dataclass(frozen=True)
class Attention:
    """A group that was recognised.

    Attributes:
        members (frozenset[int]): Places of its instructions.
        levels (list[Level]): At least one.
        weights (Source): Weights as the mul reads them.
        product (Requantizer): Of the mul.
        total (Requantizer): Of the reduce_sum.
        out (Source): The sum as a view of the result.
    """
    members: frozenset[int]
    levels: list[Level]
    weights: Source
    product: Requantizer
    total: Requantizer
    out: Source


@FAST.fuser
def find_attention(fusion: FusionView) -> Iterator[FusedGroup]:
    """Groups of deformable attention; see the module's docstring."""
    for place in sorted(fusion.free):
        if fusion.program.instructions[place].op == 'bpu.reduce_sum':
            found = _recognise(fusion, place)
            if found is not None:
                yield fusion.group(found.members, _into(fusion, found))


def _recognise(fusion: FusionView, place: int) -> Optional[Attention]:
    """The attention that ends in a reduce_sum; None if it is none."""
    product_place = _producer(fusion, fusion.program.instructions[place].inputs[0], 'bpu.mul')
    if product_place is None:
        return None
    lhs, rhs = fusion.program.instructions[product_place].inputs
    for samples, weights in ((lhs, rhs), (rhs, lhs)):
        if _producer(fusion, samples, 'bpu.grid_sample', *JOINING) is None:
            continue
        for out in destination(fusion, fusion.program.instructions[place].outputs[0]):
            found = _joined(fusion, place, product_place, samples, weights, out)
            if found is not None:
                return found
    return None


def _joined(fusion: FusionView, total: int, product: int, samples: str, weights: str,
            out: Source) -> Optional[Attention]:
    """The attention whose sum is stored as ``out`` says; None if its strides are none."""
    shape = _shape(fusion, samples)
    try:
        plans = [_plan(fusion, place) for place in (product, total)]
        closed: set[int] = set()
        while True:
            read = source(fusion, weights, closed)
            if _shape(fusion, fusion.program.instructions[product].outputs[0]) != shape:
                return None
            found = _levels(fusion, samples, read.view.expand(shape), out.view.expand(shape),
                            closed)
            if found is None:
                return None
            levels, joining = found
            upstream = read.members.union(*(each.value.members | each.grid.members
                                            for each in levels))
            members = (upstream | joining | out.members | {total, product}
                       | {level.place for level in levels})
            needed = set(fusion.borders(members)[1]) - {out.name}
            if not needed:
                break
            outside = {fusion.producers[name] for name in needed}
            if not outside <= upstream:
                return None  # a sample or product is read by others
            closed |= outside
    except BpuError:
        return None  # planned alone, the instruction says what is wrong, and where
    attention = Attention(frozenset(members), levels, read, *plans, out)
    return attention if _fits(fusion, attention) else None


def _levels(fusion: FusionView, name: str, weight: View, out: View, closed: set[int]
            ) -> Optional[tuple[list[Level], frozenset[int]]]:
    """Levels whose samples are joined to ``name``, and the places of what joins them."""
    place = _producer(fusion, name, 'bpu.grid_sample', *JOINING)
    if place is None:
        return None
    instruction = fusion.program.instructions[place]
    if instruction.op == 'bpu.grid_sample':
        _plan(fusion, place)
        value, grid = (source(fusion, each, closed) for each in instruction.inputs)
        if value.strides[3] > 1:  # channels must lie side by side: read what is in that order
            value = source(fusion, instruction.inputs[0], closed | value.members)
        return [Level(place, value, grid, weight, out)], frozenset()
    shapes = [_shape(fusion, each) for each in instruction.inputs]
    weights, outs = (moved_back(view, instruction, shapes) for view in (weight, out))
    if weights is None or outs is None:
        return None
    found = [_levels(fusion, each, *views, closed)
             for each, *views in zip(instruction.inputs, weights, outs)]
    if None in found:
        return None
    return ([level for levels, _ in found for level in levels],
            frozenset({place}).union(*(joining for _, joining in found)))


def _fits(fusion: FusionView, attention: Attention) -> bool:
    """Whether the loop computes it: every result once, channels side by side, int8 throughout."""
    first = attention.levels[0]
    heads, queries, _, channels = first.out.shape
    instructions = fusion.program.instructions
    for level in attention.levels:
        if (level.out.shape[:2] != (heads, queries) or level.out.shape[3] != channels
                or strides(level.out)[2] or strides(level.weight)[3]
                or strides(level.out) != strides(first.out)
                or level.out.storage_offset() != first.out.storage_offset()):
            return False
    names = [attention.weights.name, attention.out.name]
    return (strides(first.out)[3] <= 1
            and attention.out.view.numel() == heads * queries * channels
            and sum(level.out.shape[2] for level in attention.levels) <= columns.LARGEST_POINTS
            and all(fusion.program.values[name].type.dtype == 'si8' for name in names)
            and all(fusion.program.values[instructions[place].outputs[0]].type.dtype == 'si8'
                    for place in attention.members
                    if instructions[place].op in ('bpu.mul', 'bpu.reduce_sum')))


def _into(fusion: FusionView, attention: Attention) -> Into:
    """The computation of a recognised attention."""
    inputs, _ = fusion.borders(attention.members)
    heads, queries, points, channels = attention.levels[0].out.shape
    table = torch.tensor([_row(fusion, level, attention.weights) for level in attention.levels])
    out_offset = attention.levels[0].out.storage_offset()
    out_head, out_query, _, _ = strides(attention.levels[0].out)
    product, total = (int8_scaling(each) for each in (attention.product, attention.total))
    high_words = not attention.product.ties and product[1] >= 17
    names = [(level.value.name, level.grid.name, attention.weights.name)
             for level in attention.levels]
    work = heads * channels * SAMPLE_WORK * sum(len(level.out[0, 0]) for level in attention.levels)

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


def _row(fusion: FusionView, level: Level, weights: Source) -> list[int]:
    """A level's row of the table, addresses still without that of the tensor."""
    attrs, plan = fusion.program.instructions[level.place].attrs, _plan(fusion, level.place)
    _, height, width, _ = level.value.view.shape
    head, y, x, _ = level.value.strides
    item = torch.int16.itemsize
    grid = [level.grid.offset * item, *(stride * item for stride in level.grid.strides)]
    weight = [level.weight.storage_offset(), *strides(level.weight)[:3]]
    return [level.value.offset, head, y, x, *grid, *weight, level.out.shape[2],
            attrs['fraction_bits'], *axis_numbers(plan, 0, width), *axis_numbers(plan, 1, height)]


def int8_scaling(requantizer: Requantizer) -> tuple[int, int]:
    """Multiplier and shift, 1 to 30, that give the same int8 result of inputs up to 2**15.

    A product has less than 31 bits: shifted by more, it is 0. The least multiplier is 2**14: what
    is not 0 saturates without being shifted to the left.
    """
    multiplier, shift = int(requantizer.multiplier[0]), int(requantizer.shift[0])
    return (0, 1) if shift > 30 else (multiplier, max(shift, 1))


def _producer(fusion: FusionView, name: str, *ops: str) -> Optional[int]:
    """Place of the free instruction that gives a value, if it is one of ``ops``."""
    place = fusion.producers.get(name)
    if place in fusion.free and fusion.program.instructions[place].op in ops:
        return place
    return None


def _shape(fusion: FusionView, name: str) -> tuple[int, ...]:
    return tuple(fusion.program.values[name].type.shape)


def _plan(fusion: FusionView, place: int):
    """The reference's plan: its checks and its constants."""
    instruction = fusion.program.instructions[place]
    types = [fusion.program.values[name].type for name in instruction.inputs]
    operands = [Operand(each.dtype, tuple(each.shape), fusion.constants.get(name))
                for name, each in zip(instruction.inputs, types)]
    return REFERENCE.kernels[instruction.op].planner(
        operands, fusion.program.kernel_attrs(instruction))
