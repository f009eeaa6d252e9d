"""Where each activation lives while a program runs, as data, and the check of such a plan."""
from dataclasses import dataclass

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.program import Program

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


def verify_plan(program: Program, order: list[int], plan: MemoryPlan) -> None:
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
