"""Where each activation lives: offsets in one arena, reused when lifetimes allow."""
import numpy as np

from mmdet_bpu.compiler.schedule import lifetimes, live_bytes
from mmdet_bpu.program.memory_plan import Buffer, MemoryPlan, align
from mmdet_bpu.program.program import Program


def plan_memory(program: Program, order: list[int]) -> MemoryPlan:
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
