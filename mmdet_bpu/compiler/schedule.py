"""The order in which a program's instructions run, chosen for a small peak of live bytes."""
import heapq
from collections import defaultdict

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.program import Program


def schedule(program: Program) -> list[int]:
    """Choose a topological order with a small peak of live activation bytes.

    Two orders are tried, the program's own and a greedy one that always takes the ready
    instruction which adds the fewest bytes; the one with the lower peak wins, the program's own
    on a tie.

    Args:
        program (Program): Integer program.

    Returns:
        list[int]: Indices into ``program.instructions``.

    Raises:
        BpuError: An instruction reads a value that nothing produces, or a cycle.
    """
    own = list(range(len(program.instructions)))
    greedy = _greedy_order(program)
    if is_topological(program, own) and peak_live_bytes(program, own) <= peak_live_bytes(
            program, greedy):
        return own
    return greedy


def is_topological(program: Program, order: list[int]) -> bool:
    """Whether every instruction runs once, after the producers of all that it reads."""
    if sorted(order) != list(range(len(program.instructions))):
        return False
    available = set(program.inputs)
    available.update(name for name, value in program.values.items() if value.data is not None)
    for index in order:
        instruction = program.instructions[index]
        if not available.issuperset(instruction.inputs):
            return False
        available.update(instruction.outputs)
    return True


def lifetimes(program: Program, order: list[int]) -> dict[str, tuple[int, int]]:
    """First and last step at which each activation must hold its data.

    Inputs are live from step 0; outputs to the last step. Constants are not activations.

    Args:
        program (Program): Integer program.
        order (list[int]): Schedule.

    Returns:
        dict[str, tuple[int, int]]: value name -> (first step, last step), both included.
    """
    spans = {name: [0, 0] for name in program.inputs}
    for step, index in enumerate(order):
        instruction = program.instructions[index]
        for name in instruction.inputs:
            if program.values[name].data is None:
                spans[name][1] = step
        for name in instruction.outputs:
            spans[name] = [step, step]
    for name in program.outputs:
        if program.values[name].data is None:
            spans[name][1] = max(len(order) - 1, 0)
    return {name: (first, last) for name, (first, last) in spans.items()}


def live_bytes(program: Program, order: list[int]) -> list[int]:
    """Live activation bytes at each step of a schedule."""
    change = [0] * (len(order) + 2)  # of no instruction too, whose values live at step 0
    for name, (first, last) in lifetimes(program, order).items():
        nbytes = program.values[name].type.nbytes
        change[first] += nbytes
        change[last + 1] -= nbytes
    total, steps = 0, []
    for delta in change[:len(order)]:
        total += delta
        steps.append(total)
    return steps


def peak_live_bytes(program: Program, order: list[int]) -> int:
    """Largest sum of live activation bytes: no memory plan can need less."""
    return max(live_bytes(program, order), default=0)


def _greedy_order(program: Program) -> list[int]:
    readers: dict[str, list[int]] = defaultdict(list)
    producer: dict[str, int] = {}
    for index, instruction in enumerate(program.instructions):
        for name in set(instruction.inputs):
            readers[name].append(index)
        for name in instruction.outputs:
            producer[name] = index
    pending = []
    for instruction in program.instructions:
        waits = {name for name in instruction.inputs if name in producer}
        for name in set(instruction.inputs) - waits - set(program.inputs):
            if program.values[name].data is None:
                raise BpuError(f'{instruction.op} at {instruction.site} reads {name}, which '
                               'nothing produces')
        pending.append(len(waits))
    left = {name: len(indices) for name, indices in readers.items()}
    for name in program.outputs:
        left[name] = left.get(name, 0) + 1

    def added_bytes(index: int) -> int:
        instruction = program.instructions[index]
        new = sum(program.values[name].type.nbytes for name in instruction.outputs)
        freed = sum(program.values[name].type.nbytes for name in set(instruction.inputs)
                    if left[name] == 1 and program.values[name].data is None)
        return new - freed

    # An entry's cost may drop while it waits (another reader of its input ran): it is pushed again
    # then, and the older entry is skipped.
    ready = [(added_bytes(index), index) for index, count in enumerate(pending) if not count]
    heapq.heapify(ready)
    order: list[int] = []
    done: set[int] = set()
    while ready:
        _, index = heapq.heappop(ready)
        if index in done:
            continue
        done.add(index)
        order.append(index)
        instruction = program.instructions[index]
        for name in set(instruction.inputs):
            left[name] -= 1
            if left[name] == 1:
                for reader in readers[name]:
                    if reader not in done and not pending[reader]:
                        heapq.heappush(ready, (added_bytes(reader), reader))
        for name in instruction.outputs:
            for reader in readers[name]:
                pending[reader] -= 1
                if not pending[reader]:
                    heapq.heappush(ready, (added_bytes(reader), reader))
    if len(order) != len(program.instructions):
        raise BpuError('the program has a cycle: '
                       f'{len(program.instructions) - len(order)} instructions never get ready')
    return order
