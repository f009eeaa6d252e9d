"""Chains of instructions that run row by row, so that what lies between them is never whole.

The schedule is cut into chains. Within one, weights stay on chip and each value takes only the
rows that its readers still need; what crosses a cut is stored whole. The cuts are those with the
fewest bytes beyond the on-chip memory, found by dynamic programming over the schedule.
"""
from collections import defaultdict
from dataclasses import dataclass, field

from mmdet_bpu.compiler.row_tiles import makes_rows, reads_rows, row_bytes, window_rows
from mmdet_bpu.program.kinds import Cost, operations_of
from mmdet_bpu.program.program import Instruction, Program

FREE_OPS = operations_of(Cost.FREE)
LONGEST_CHAIN = 64
"""Instructions of a chain at most: a bound on the search."""
CUT_BYTES = 1000
"""What a cut counts beside the bytes that leave the chip, so that fewer are made."""


@dataclass(frozen=True)
class Chain:
    """Steps ``start`` to ``end`` - 1 that run together, and the bytes of weights and rows that
    they hold; 0 for one step, which streams."""
    start: int
    end: int
    held_bytes: int


@dataclass
class Flow:
    """Who makes and reads what in a schedule, names that mean the same bytes taken together.

    Attributes:
        steps (list[Instruction]): Those that do work, in the order they run.
        producer (dict[str, int]): Value -> step that makes it; inputs have none.
        readers (dict[str, list[int]]): Value -> steps that read it.
        last (dict[str, int]): Value -> last step that needs it; the number of steps for outputs.
        outputs (set[str]): Values that leave the program.
        makes_rows (list[bool]), reads_rows (list[bool]): Of each step, see
            :mod:`mmdet_bpu.compiler.row_tiles`.
        weights (list[int]): Constant bytes that each step reads.
    """
    program: Program
    steps: list[Instruction] = field(default_factory=list)
    producer: dict[str, int] = field(default_factory=dict)
    readers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    last: dict[str, int] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    makes_rows: list[bool] = field(default_factory=list)
    reads_rows: list[bool] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, program: Program, order: list[int]) -> 'Flow':
        """The flow of a program under a schedule."""
        flow, same = cls(program), {}
        flow._same = same
        for instruction in (program.instructions[index] for index in order):
            if instruction.op in FREE_OPS:
                same[instruction.outputs[0]] = flow.stored(instruction.inputs[0])
                continue
            step = len(flow.steps)
            flow.steps.append(instruction)
            for name in instruction.outputs:
                flow.producer[name] = flow.last[name] = step
            for name in flow.operands(step):
                flow.readers[name].append(step)
                flow.last[name] = step
            flow.makes_rows.append(makes_rows(program, instruction))
            flow.reads_rows.append(reads_rows(program, instruction))
            flow.weights.append(flow.constant_bytes(step))
        flow.outputs = {flow.stored(name) for name in program.outputs}
        flow.last.update(dict.fromkeys(flow.outputs, len(flow.steps)))
        windows = [window_rows(program, step) for step in flow.steps]
        flow._windows, flow._lag = windows, [0]
        for rows in windows:
            flow._lag.append(flow._lag[-1] + rows - 1)
        return flow

    def stored(self, name: str) -> str:
        """The value whose bytes ``name`` means: a reshape makes none of its own."""
        return self._same.get(name, name)

    def size(self, name: str) -> int:
        """Bytes of the whole value."""
        return self.program.values[name].type.nbytes

    def operands(self, step: int) -> list[str]:
        """Activations that a step reads, each once."""
        names = dict.fromkeys(self.stored(name) for name in self.steps[step].inputs)
        return [name for name in names if self.program.values[name].data is None]

    def constant_bytes(self, step: int) -> int:
        """Of the constants that a step reads, each once."""
        return sum(self.size(name) for name in dict.fromkeys(map(self.stored,
                                                                 self.steps[step].inputs))
                   if self.program.values[name].data is not None)

    def rows_held(self, name: str, reader: int) -> int:
        """Bytes of the rows that a value keeps until ``reader`` has read them.

        Its readers' widest window, and the rows by which what runs in between lags behind.
        """
        rows = max(self._windows[step] for step in self.readers[name])
        rows += self._lag[reader] - self._lag[self.producer[name] + 1] + 1
        return min(self.size(name), rows * row_bytes(self.program.values[name].type))


def chains_of(flow: Flow, sram_bytes: int, in_ddr: set[str]) -> list[Chain]:
    """Cut a schedule into chains.

    Args:
        flow (Flow): Of the schedule.
        sram_bytes (int): On-chip memory.
        in_ddr (set[str]): Values that take none of it.
    """
    count, live = len(flow.steps), _live_bytes(flow, in_ddr)
    best, cut = [float('inf')] * (count + 1), [Chain(0, 0, 0)] * (count + 1)
    best[0] = 0
    for start in range(count):
        weights, rows, held, crossing = 0, 0, {}, 0
        for step in range(start, min(count, start + LONGEST_CHAIN)):
            if step > start and not (flow.reads_rows[step] and flow.makes_rows[step - 1]):
                break
            weights += flow.weights[step]
            for name in flow.operands(step):
                if flow.producer.get(name, -1) >= start:
                    held_now = flow.rows_held(name, step)
                    rows += held_now - held.get(name, 0)
                    held[name] = held_now
                    if flow.last[name] == step and name not in in_ddr:
                        crossing -= flow.size(name)
            crossing += sum(flow.size(name) for name in flow.steps[step].outputs
                            if name not in in_ddr and flow.last[name] > step)
            held_bytes = weights + rows if step > start else 0
            if held_bytes > sram_bytes:
                break
            beyond = max(0, live[start] + crossing + held_bytes - sram_bytes)
            cost = best[start] + beyond + CUT_BYTES
            if cost < best[step + 1]:
                best[step + 1], cut[step + 1] = cost, Chain(start, step + 1, held_bytes)
    chains, end = [], count
    while end:
        chains.append(cut[end])
        end = cut[end].start
    return chains[::-1]


def _live_bytes(flow: Flow, in_ddr: set[str]) -> list[int]:
    """Bytes of the values that are live before each step."""
    change = [0] * (len(flow.steps) + 2)
    for name, step in flow.producer.items():
        if name not in in_ddr:
            change[step + 1] += flow.size(name)
            change[min(flow.last[name], len(flow.steps)) + 1] -= flow.size(name)
    total, live = 0, []
    for delta in change[:-1]:
        total += delta
        live.append(total)
    return live
