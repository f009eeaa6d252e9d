"""Memory of an interpreter's results, planned once: a run allocates nothing for them."""
import torch

from mmdet_bpu.executors.planning import Step
from mmdet_bpu.kernels.kernel_set import IntoRun
from mmdet_bpu.program.dtypes import TORCH_DTYPES
from mmdet_bpu.program.memory_plan import align
from mmdet_bpu.program.program import Program


class Buffers:
    """A tensor for every result of the steps that write where they are told.

    A buffer is used again when its value has been read for the last time. What other steps give may
    be a view of what they read: its memory stays as long as theirs.

    Args:
        program (Program): Integer program.
        steps (list[Step]): In the order they run.
        dead (list[list[str]]): Per step, the values that nothing needs after it.

    Attributes:
        tensors (dict[str, torch.Tensor]): Value name -> where it is written.
    """

    def __init__(self, program: Program, steps: list[Step], dead: list[list[str]]) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._blocks: list[torch.Tensor] = []
        free: list[int] = []
        holders: dict[str, set[int]] = {}  # value -> blocks that it may lie in
        users: dict[int, int] = {}  # block -> values alive that may lie in it
        for step, gone in zip(steps, dead):
            read = set().union(*(holders.get(name, ()) for name in step.instruction.inputs), ())
            for name in step.instruction.outputs:
                if isinstance(step.run, IntoRun):
                    kind = program.values[name].type
                    block = self._take(free, max(align(kind.nbytes), 1))
                    self.tensors[name] = self._blocks[block][:kind.nbytes].view(
                        TORCH_DTYPES[kind.dtype]).view(kind.shape)
                    holders[name] = {block}
                else:
                    holders[name] = read
                for block in holders[name]:
                    users[block] = users.get(block, 0) + 1
            for name in gone:
                for block in holders.get(name, ()):
                    users[block] -= 1
                    if not users[block]:
                        free.append(block)

    def _take(self, free: list[int], nbytes: int) -> int:
        """The smallest free block that is large enough, else a new one."""
        fitting = [block for block in free if len(self._blocks[block]) >= nbytes]
        if fitting:
            block = min(fitting, key=lambda each: len(self._blocks[each]))
            free.remove(block)
            return block
        self._blocks.append(torch.empty(nbytes, dtype=torch.uint8))
        return len(self._blocks) - 1
