"""Every instruction of a program made ready by a kernel set, once, before the first run."""
from collections import Counter

import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.protocol import KernelCounts
from mmdet_bpu.kernels.kernel_set import Run
from mmdet_bpu.kernels.registry import kernel_set, plan_instruction
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.program import Program


def plan_program(program: Program, constants: dict[str, torch.Tensor],
                 kernels: str) -> tuple[list[Run], KernelCounts]:
    """Make the instructions of a program ready.

    Args:
        program (Program): Integer program.
        constants (dict[str, torch.Tensor]): Value name -> constant, on the device of the run.
        kernels (str): Name of a kernel set; what it has no plan for is computed by ``reference``.

    Returns:
        tuple[list[Run], KernelCounts]: A function per instruction, and which set computes what.

    Raises:
        BpuError: An unknown kernel set, or an instruction that the numeric contract excludes; the
            message names its site.
    """
    chosen = kernel_set(kernels)
    runs, counts = [], {}
    for instruction in program.instructions:
        values = [program.values[name] for name in instruction.inputs]
        operands = [Operand(value.type.dtype, tuple(value.type.shape), constants.get(value.name))
                    for value in values]
        try:
            name, run = plan_instruction(chosen, instruction.op, operands,
                                         program.kernel_attrs(instruction))
        except BpuError as error:
            raise BpuError(f'at {instruction.site!r}: {error}') from None
        runs.append(run)
        counts.setdefault(name, Counter())[instruction.op] += 1
    return runs, counts
