"""A program made ready by a kernel set, once, before the first run."""
from collections import Counter
from dataclasses import dataclass
from typing import Callable

import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.protocol import KernelCounts
from mmdet_bpu.kernels.fusion import FusedGroup
from mmdet_bpu.kernels.kernel_set import IntoRun, Run
from mmdet_bpu.kernels.registry import kernel_set, plan_instruction
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.program import Instruction, Program


@dataclass(frozen=True)
class Step:
    """What one call computes: an instruction, or several that are fused.

    Attributes:
        instruction (Instruction): The instruction. Of a fused group: op ``fused``, the values that
            the group reads and those that it stores, and the site of its last instruction.
        members (tuple[int, ...]): Places in the program, ascending; it runs at the last one.
        run (Run): The computation.
    """
    instruction: Instruction
    members: tuple[int, ...]
    run: Run


def plan_program(program: Program, constants: dict[str, torch.Tensor], kernels: str,
                 fuse: bool = True, accept: Callable[[FusedGroup], bool] = lambda group: True
                 ) -> tuple[list[Step], KernelCounts]:
    """Make the instructions of a program ready.

    Args:
        program (Program): Integer program.
        constants (dict[str, torch.Tensor]): Value name -> constant, on the device of the run.
        kernels (str): Name of a kernel set; what it has no plan for is computed by ``reference``.
        fuse (bool): Let the set compute several instructions in one go. Defaults to True.
        accept (Callable): Groups for which it is false are computed one instruction at a time.
            Defaults to taking every group.

    Returns:
        tuple[list[Step], KernelCounts]: Steps in the order they run, and which set computes what.

    Raises:
        BpuError: An unknown kernel set, or an instruction that the numeric contract excludes; the
            message names its site.
    """
    chosen = kernel_set(kernels)
    counts: KernelCounts = {}
    steps = []
    groups = list(filter(accept, chosen.groups(program, constants))) if fuse else []
    for group in groups:
        steps.append(group_step(program, group))
        for place in group.members:
            _count(counts, chosen.name, program.instructions[place])
    grouped = {place for group in groups for place in group.members}
    for place in range(len(program.instructions)):
        if place not in grouped:
            step, name = instruction_step(program, constants, kernels, place)
            steps.append(step)
            _count(counts, name, step.instruction)
    return sorted(steps, key=lambda step: step.members[-1]), counts


def group_step(program: Program, group: FusedGroup) -> Step:
    """The step of a fused group."""
    types = [program.values[name].type for name in group.outputs]
    run = IntoRun(group.into, [each.shape for each in types], [each.dtype for each in types])
    site = program.instructions[group.members[-1]].site
    fused = Instruction('fused', list(group.inputs), list(group.outputs), {}, site)
    return Step(fused, group.members, run)


def instruction_step(program: Program, constants: dict[str, torch.Tensor], kernels: str,
                     place: int) -> tuple[Step, str]:
    """The step of one instruction, and the name of the set that computes it.

    Raises:
        BpuError: See :func:`plan_program`.
    """
    instruction = program.instructions[place]
    values = [program.values[name] for name in instruction.inputs]
    operands = [Operand(value.type.dtype, tuple(value.type.shape), constants.get(value.name))
                for value in values]
    try:
        name, run = plan_instruction(kernel_set(kernels), instruction.op, operands,
                                     program.kernel_attrs(instruction))
    except BpuError as error:
        raise BpuError(f'at {instruction.site!r}: {error}') from None
    return Step(instruction, (place, ), run), name


def _count(counts: KernelCounts, name: str, instruction: Instruction) -> None:
    counts.setdefault(name, Counter())[instruction.op] += 1
