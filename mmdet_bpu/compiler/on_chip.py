"""Which activations stay in a core's SRAM, and so cost no DDR traffic.

A model of the compiler, not of a document: the published tables show that a ResNet50 at 224 x 224
writes nothing but its output to DDR and that YOLOv2 at 608 x 608 writes 0.77 MB although its
first activation alone has 11.8 MB, hence chains of spatial ops run tile by tile.

* A tensor that lives for at most :data:`TILED_STEPS` steps between ops that work row by row takes
  only the rows that its readers' windows cover.
* Any other tensor takes its whole size.
* Tensors compete for the SRAM; those that free the most bytes per step are sent to DDR first.
"""
from mmdet_bpu.program.kinds import Cost, operations_of, tiled_operations
from mmdet_bpu.program.memory_plan import MemoryPlan

# Instructions that one tiled group spans: a residual block with its shortcut.
TILED_STEPS = 8
ROW_OPS = tiled_operations()
# Rows kept per step of a tiled group, each side of a 3 x 3 window needing one.
ROWS_PER_STEP = 3
FREE_OPS = operations_of(Cost.FREE)


def footprint(program, order: list[int], plan: MemoryPlan, name: str) -> int:
    """Bytes of SRAM that a value takes while it lives."""
    buffer = plan.buffers[name]
    shape = program.values[name].type.shape
    steps = buffer.last - buffer.first
    if len(shape) != 4 or steps > TILED_STEPS or name in program.inputs:
        return buffer.nbytes
    neighbours = (program.instructions[order[step]]
                  for step in range(buffer.first, buffer.last + 1))
    if not all(neighbour.op in ROW_OPS for neighbour in neighbours):
        return buffer.nbytes
    rows = ROWS_PER_STEP * (steps + 1)
    return min(buffer.nbytes, buffer.nbytes // shape[1] * rows)


def spilled_values(program, order: list[int], plan: MemoryPlan, sram_bytes: int) -> set[str]:
    """Values that do not stay on chip.

    Linear scan: at each step, while the live footprints exceed the SRAM, the live value with the
    largest footprint (then the longest remaining life) goes to DDR for its whole life.

    Args:
        program (Program): Integer program.
        order (list[int]): Schedule.
        plan (MemoryPlan): Gives the lifetimes.
        sram_bytes (int): On-chip memory.

    Returns:
        set[str]: Names of activations that live in DDR. Inputs and outputs of the program are
        among them: a host writes and reads them there.
    """
    spilled = set(program.inputs) | set(program.outputs)
    starting: dict[int, list[str]] = {}
    sizes = {}
    for name, buffer in plan.buffers.items():
        if name not in spilled:
            sizes[name] = footprint(program, order, plan, name)
            starting.setdefault(buffer.first, []).append(name)
    live: list[str] = []
    for step in range(len(order)):
        live = [name for name in live if plan.buffers[name].last >= step]
        live += starting.get(step, [])
        used = sum(sizes[name] for name in live)
        while used > sram_bytes:
            victim = max(live, key=lambda name: (sizes[name], plan.buffers[name].last, name))
            live.remove(victim)
            used -= sizes[victim]
            spilled.add(victim)
    return spilled
