"""Deformable attention, recognised by its structure whatever the order of movement.

Its form is that of :mod:`mmdet_bpu.kernels.fast.attention`.
"""
from dataclasses import dataclass
from typing import Optional

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.fast.attention_loop import LARGEST_POINTS
from mmdet_bpu.kernels.fast.strided_views import (Source, View, destination, moved_back, source,
                                                  strides)
from mmdet_bpu.kernels.fusion import FusionView
from mmdet_bpu.kernels.reference import REFERENCE
from mmdet_bpu.kernels.reference.requantizer import Requantizer
from mmdet_bpu.kernels.reference.sampling import SamplePlan
from mmdet_bpu.program.numerics import Operand

# Instructions between the samples and the mul, which only say where an element goes.
JOINING = ('bpu.reshape', 'bpu.transpose', 'bpu.concat')


@dataclass(frozen=True)
class Level:
    """One grid_sample and where its parts lie; views are (N, Q, P, C), but for values and grid.

    Attributes:
        place (int): In the program.
        plan (SamplePlan): Of the reference.
        value (Source): (N, H, W, C).
        grid (Source): (N, Q, P, 2).
        weight (View): In the weights' source.
        out (View): In the result.
    """
    place: int
    plan: SamplePlan
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


def recognise(fusion: FusionView, place: int) -> Optional[Attention]:
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
        plan = _plan(fusion, place)
        value, grid = (source(fusion, each, closed) for each in instruction.inputs)
        if value.strides[3] > 1:  # channels must lie side by side: read what is in that order
            value = source(fusion, instruction.inputs[0], closed | value.members)
        return [Level(place, plan, value, grid, weight, out)], frozenset()
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
    read = {attention.weights.name, *(name for level in attention.levels
                                      for name in (level.value.name, level.grid.name))}
    made = {name for place in attention.members for name in instructions[place].outputs}
    return (not read & made  # samples that are weighed by themselves, or sampled again
            and strides(first.out)[3] <= 1
            and attention.out.view.numel() == heads * queries * channels
            and sum(level.out.shape[2] for level in attention.levels) <= LARGEST_POINTS
            and all(fusion.program.values[name].type.dtype == 'si8' for name in names)
            and all(fusion.program.values[instructions[place].outputs[0]].type.dtype == 'si8'
                    for place in attention.members
                    if instructions[place].op in ('bpu.mul', 'bpu.reduce_sum')))


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
