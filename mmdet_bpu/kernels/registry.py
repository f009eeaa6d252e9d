"""The kernel sets by name, and an instruction made ready by one of them.

``reference`` computes every integer op; what another set has no plan for falls back to it.
"""
import importlib
import pkgutil
from collections import Counter

import mmdet_bpu.kernels
from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.kernel_set import SETS, Kernel, KernelSet, Run
from mmdet_bpu.kernels.reference import REFERENCE
from mmdet_bpu.program.numerics import Operand

KERNELS: dict[str, Kernel] = REFERENCE.kernels


def kernel_set_names() -> list[str]:
    """Names that :func:`kernel_set` takes."""
    folders = {module.name for module in pkgutil.iter_modules(mmdet_bpu.kernels.__path__)
               if module.ispkg}
    return sorted(folders | set(SETS))


def kernel_set(name: str) -> KernelSet:
    """A kernel set by its name; its folder is imported when it is first asked for.

    Raises:
        BpuError: No set of that name.
    """
    if name not in SETS:
        if name not in kernel_set_names():
            raise BpuError(f'unknown kernel set {name!r}: expected one of '
                           f'{", ".join(kernel_set_names())}')
        importlib.import_module(f'mmdet_bpu.kernels.{name}')
        assert name in SETS, f'the folder kernels/{name} registers no kernel set of its name'
    return SETS[name]


def description(counts: dict[str, Counter]) -> str:
    """Which kernel sets compute a program, in a line for users.

    Args:
        counts (dict[str, Counter]): Name of a set -> op -> instructions that it computes.
    """
    parts = [f'{name} {sum(counts[name].values())} instructions' for name in sorted(counts)]
    notes = [note for name, each in sorted(SETS.items()) if name in counts or not each.kernels
             for note in each.notes]
    return '; '.join([', '.join(parts), *notes])


def plan_instruction(kernels: KernelSet, op: str, operands: list[Operand],
                     attrs: dict) -> tuple[str, Run]:
    """Make an instruction ready by a set, or by ``reference`` where the set has no plan for it.

    Args:
        kernels (KernelSet): Set that is asked first.
        op (str): Name of the instruction, e.g. ``bpu.conv2d``.
        operands (list[Operand]): Types, shapes and constants.
        attrs (dict): Attributes with ``out_dtypes``; unchanged by this call.

    Returns:
        tuple[str, Run]: Name of the set that computes it, and how.

    Raises:
        BpuError: An unknown op, or an instruction that the numeric contract excludes.
    """
    for candidate in (kernels, REFERENCE):
        run = candidate.plan(op, operands, attrs)
        if run is not None:
            return candidate.name, run
    raise BpuError(f'no integer kernel for {op!r}: expected one of {", ".join(KERNELS)}; a '
                   'program with it was made by another version of mmdet_bpu')
