"""Where each activation lives: offsets in one arena, reused when lifetimes allow."""
from dataclasses import dataclass

import numpy as np

from mmdet_bpu.compiler.schedule import lifetimes, live_bytes
from mmdet_bpu.errors import BpuError

# A line of the DMA engines of common NPUs and of this host's caches; also aligns any integer type.
ALIGNMENT = 64


@dataclass(frozen=True)
class Buffer:
    """Place and lifetime of one activation.

    Attributes:
        offset: First byte in the arena, a multiple of :data:`ALIGNMENT`.
        nbytes: Size in bytes.
        first: First step of the schedule at which it holds its data.
        last: Last such step, included.
    """
    offset: int
    nbytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    """The arena of one program under one schedule.

    Attributes:
        arena_bytes: Size of the arena.
        peak_live_bytes: Largest sum of live bytes, the least that any plan needs.
        buffers: Value name -> its place.
    """
    arena_bytes: int
    peak_live_bytes: int
    buffers: dict[str, Buffer]


def align(nbytes: int) -> int:
    """Round a size up to :data:`ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def plan_memory(program, order: list[int]) -> MemoryPlan:
    """Place every activation, largest first, in the tightest gap among the ones it lives beside.

    Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
    Inference", 2020) with best fit.

    Args:
        program (Program): Integer program.
        order (list[int]): Schedule.

    Returns:
        MemoryPlan: Every activation's offset and lifetime.
    """
    spans = lifetimes(program, order)
    sizes = {name: program.values[name].type.nbytes for name in spans}
    names = sorted(spans, key=lambda name: (-sizes[name], spans[name][0], name))
    placed = np.zeros((4, len(names)), np.int64)  # first, last, offset, end
    buffers: dict[str, Buffer] = {}
    for count, name in enumerate(names):
        first, last = spans[name]
        beside = placed[:, :count]
        beside = beside[:, (beside[0] <= last) & (beside[1] >= first)]
        offset = _best_fit(beside[2], beside[3], align(sizes[name]))
        placed[:, count] = first, last, offset, offset + align(sizes[name])
        buffers[name] = Buffer(offset, sizes[name], first, last)
    arena = int(placed[3].max(initial=0))
    return MemoryPlan(arena, max(live_bytes(program, order), default=0),
                      {name: buffers[name] for name in spans})


def _best_fit(starts: np.ndarray, ends: np.ndarray, size: int) -> int:
    """Offset of the smallest gap that holds ``size`` bytes, else the end of the last buffer."""
    best, best_gap, cursor = None, None, 0
    for index in np.argsort(starts, kind='stable'):
        gap = int(starts[index]) - cursor
        if gap >= size and (best_gap is None or gap < best_gap):
            best, best_gap = cursor, gap
        cursor = max(cursor, int(ends[index]))
    return cursor if best is None else best


def verify_plan(program, order: list[int], plan: MemoryPlan) -> None:
    """Check a plan by walking the schedule: no two values that hold data may share a byte.

    It recomputes who is live from the instructions, so it shares nothing with the planner.

    Raises:
        BpuError: Names the two values and the step, or the buffer that leaves the arena.
    """
    for name, buffer in plan.buffers.items():
        if buffer.offset % ALIGNMENT or buffer.offset < 0:
            raise BpuError(f'memory plan: {name} starts at byte {buffer.offset}, not a multiple '
                           f'of {ALIGNMENT}')
        if buffer.offset + buffer.nbytes > plan.arena_bytes:
            raise BpuError(f'memory plan: {name} ends at byte {buffer.offset + buffer.nbytes}, '
                           f'behind the arena of {plan.arena_bytes} bytes')
    last_use = {name: step for step, index in enumerate(order)
                for name in program.instructions[index].inputs}
    last_use.update({name: len(order) for name in program.outputs})
    live = [name for name in program.inputs if name in last_use]
    for step, index in enumerate(order):
        live = live + list(program.instructions[index].outputs)
        by_offset = sorted((plan.buffers[name].offset, name) for name in live)
        for (_, name), (start, following) in zip(by_offset, by_offset[1:]):
            if plan.buffers[name].offset + program.values[name].type.nbytes > start:
                raise BpuError(f'memory plan: {name} and {following} overlap at step {step} '
                               f'({program.instructions[index].site})')
        live = [name for name in live if last_use.get(name, step) > step]
