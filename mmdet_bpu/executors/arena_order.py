"""When a fused group may run on a planned arena, and where it finds what it reads.

On the board the instructions of a group run one by one, each reading and writing the arena at its
own step. Fused, they read and write at the last one's step. That is the same only while the bytes
in question hold what they should: a memory plan with a wrong offset must change the outputs of the
fused program too. A group that the plan's bytes do not allow is not fused.
"""
from typing import Collection, Sequence

from mmdet_bpu.kernels.fusion import FusedGroup
from mmdet_bpu.program.memory_plan import MemoryPlan
from mmdet_bpu.program.program import Program


class ArenaOrder:
    """Which bytes of the arena are written at which step.

    Args:
        program (Program): Instructions in the order they run.
        plan (MemoryPlan): Where each activation lies.
    """

    def __init__(self, program: Program, plan: MemoryPlan) -> None:
        self._program, self._plan = program, plan
        self._writers = {name: step for step, instruction in enumerate(program.instructions)
                         for name in instruction.outputs}

    def allows(self, group: FusedGroup) -> bool:
        """Whether the group reads and writes at its last member's step what its members would.

        An input's bytes must stay untouched from the first member that reads it to the last one,
        and an output's from its member's step to the group's, other outputs of the group included.
        """
        readers = self._readers(group.members, group.inputs)
        return not any(self._written(name, min(steps), max(steps) - 1)
                       for name, steps in readers.items()) and not any(
            self._written(name, self._writers[name], group.members[-1], {name})
            for name in group.outputs)

    def saved_inputs(self, members: Sequence[int], inputs: Sequence[str]) -> dict[str, int]:
        """Inputs whose bytes others write before the group runs, and the step at whose beginning
        they are copied: that of the first member that reads them."""
        inside = {name for member in members
                  for name in self._program.instructions[member].outputs}
        return {name: min(steps) for name, steps in self._readers(members, inputs).items()
                if self._written(name, min(steps), members[-1] - 1, inside)}

    def overlap(self, name: str, other: str) -> bool:
        """Whether two values share bytes of the arena."""
        if name not in self._plan.buffers or other not in self._plan.buffers:
            return False
        one, two = self._plan.buffers[name], self._plan.buffers[other]
        return one.offset < two.offset + two.nbytes and two.offset < one.offset + one.nbytes

    def _readers(self, members: Sequence[int], inputs: Sequence[str]) -> dict[str, list[int]]:
        return {name: [member for member in members
                       if name in self._program.instructions[member].inputs]
                for name in inputs}

    def _written(self, name: str, first: int, last: int, but: Collection[str] = ()) -> bool:
        """Whether an instruction of steps first to last writes into a value's bytes."""
        return any(self.overlap(name, other) for step in range(first, last + 1)
                   for other in self._program.instructions[step].outputs if other not in but)
