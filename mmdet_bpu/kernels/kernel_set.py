"""What a kernel set is: for each integer op, how its instructions are computed.

A set is one folder beside ``reference``. Importing the folder makes a :class:`KernelSet` of the
folder's name and registers it:

    FAST = register(KernelSet('fast'))

    def plan_mul(operands, attrs):          # once: what types, shapes and constants decide
        return ...                          # None: this instruction is left to the reference

    @FAST.kernel('bpu.mul', plan_mul)
    def mul(inputs, attrs, plan):           # at every run
        return [...]

A set whose kernels write where they are told, so that nothing is allocated in a run, gives the
function of a run at once:

    @FAST.into('bpu.mul')
    def mul(operands, attrs):               # once; attrs hold out_dtypes and out_shapes
        def run(inputs, outputs): ...       # at every run
        return run                          # None: left to the reference

It may also compute several instructions in one go; see :mod:`mmdet_bpu.kernels.fusion`.
"""
import inspect
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.fusion import FusedGroup, Fuser, Into, Tensors, find_groups
from mmdet_bpu.program.dtypes import TORCH_DTYPES
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.program import Program

Run = Callable[[Tensors], Tensors]
"""An instruction made ready: from its inputs to its outputs, which may be views of the inputs."""
Planner = Callable[[list[Operand], dict], Any]
IntoPlanner = Callable[[list[Operand], dict], Optional[Into]]


@dataclass(frozen=True)
class PlannedKernel:
    """A :data:`Run` of one instruction.

    Attributes:
        compute (Callable): ``(inputs, attrs, plan) -> outputs``; without a planner
            ``(inputs, attrs) -> outputs``.
        attrs (dict): Attributes of the instruction, and ``out_dtypes``.
        plan (Any): What the planner gave, None without one.
    """
    compute: Callable[..., Tensors]
    attrs: dict
    plan: Any = None

    def __call__(self, inputs: Tensors) -> Tensors:
        if self.plan is None:
            return self.compute(inputs, self.attrs)
        return self.compute(inputs, self.attrs, self.plan)


@dataclass(frozen=True)
class IntoRun:
    """A :data:`Run` that can also write its results where it is told.

    Attributes:
        into (Into): The computation.
        shapes (list[tuple[int, ...]]): Of the results.
        dtypes (list[str]): Of the results.
    """
    into: Into
    shapes: list[tuple[int, ...]]
    dtypes: list[str]

    def __call__(self, inputs: Tensors) -> Tensors:
        outputs = [torch.empty(shape, dtype=TORCH_DTYPES[dtype], device=inputs[0].device)
                   for shape, dtype in zip(self.shapes, self.dtypes)]
        self.into([tensor.contiguous() for tensor in inputs], outputs)
        return outputs


@dataclass(frozen=True)
class IntoKernel:
    """How one op is computed by a set whose kernels write where they are told.

    Attributes:
        op (str): Name, e.g. ``bpu.conv2d``.
        planner (IntoPlanner): ``(operands, attrs) -> into``; attrs hold ``out_shapes`` too.
    """
    op: str
    planner: IntoPlanner

    def plan(self, operands: list[Operand], attrs: dict) -> Optional[IntoRun]:
        """Make an instruction ready; None if the planner leaves it to the reference set."""
        into = self.planner(operands, attrs)
        return None if into is None else IntoRun(into, attrs['out_shapes'], attrs['out_dtypes'])


@dataclass(frozen=True)
class Kernel:
    """How one op is computed.

    A plan holds what depends on types, shapes and constants alone: the carrier, the weight in its
    format, an expanded table. Making it also proves that no accumulator can overflow.

    Attributes:
        op (str): Name, e.g. ``bpu.conv2d``.
        compute (Callable): See :class:`PlannedKernel`.
        planner (Callable | None): ``(operands, attrs) -> plan``; None for an op whose attributes
            say all.
        probe (Callable | None): Checks on a device, once, that it computes this op exactly; raises
            a BpuError if not.
        constants (tuple[int, ...]): Operands that the program always holds: weight, bias.
    """
    op: str
    compute: Callable[..., Tensors]
    planner: Optional[Planner] = None
    probe: Optional[Callable[[str], None]] = None
    constants: tuple[int, ...] = ()

    def plan(self, operands: list[Operand], attrs: dict) -> Optional[PlannedKernel]:
        """Make an instruction ready; None if the planner leaves it to the reference set.

        Args:
            operands (list[Operand]): Types, shapes and constants.
            attrs (dict): Attributes, unchanged by this call.

        Raises:
            BpuError: An instruction that the numeric contract excludes.
        """
        for index in self.constants:
            if operands[index].constant is None:
                raise BpuError(f'{self.op}: expected a constant as operand {index}, found a value '
                               'that is computed')
        if self.planner is None:
            return PlannedKernel(self.compute, attrs)
        if self.probe is not None:
            self.probe(next((str(o.constant.device) for o in operands
                             if o.constant is not None), 'cpu'))
        plan = self.planner(operands, attrs)
        return None if plan is None else PlannedKernel(self.compute, attrs, plan)

    def __call__(self, inputs: Tensors, attrs: dict) -> Tensors:
        """Plan and run at once, from tensors alone."""
        operands = [Operand.of(tensor, index in self.constants)
                    for index, tensor in enumerate(inputs)]
        return self.plan(operands, attrs)(inputs)


class KernelSet:
    """Kernels by op, under one name.

    Args:
        name (str): What users call it: the name of its folder.

    Attributes:
        kernels (dict[str, Kernel | IntoKernel]): Op -> kernel.
        fusers (list[Fuser]): What finds instructions to compute in one go, asked in turn.
        notes (list[str]): What users should know of it: which units it runs on, what is missing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.kernels: dict[str, Union[Kernel, IntoKernel]] = {}
        self.fusers: list[Fuser] = []
        self.notes: list[str] = []

    def kernel(self, op: str, planner: Optional[Planner] = None, *,
               probe: Optional[Callable[[str], None]] = None,
               constants: tuple[int, ...] = ()) -> Callable:
        """Decorate the function that computes ``op``; see :class:`Kernel`."""

        def register_kernel(compute: Callable[..., Tensors]) -> Callable[..., Tensors]:
            assert op not in self.kernels, f'{self.name} has two kernels for {op}'
            expected = 2 if planner is None else 3
            assert len(inspect.signature(compute).parameters) == expected, \
                f'{op}: a kernel takes inputs, attrs' + (', plan' if planner else '')
            self.kernels[op] = Kernel(op, compute, planner, probe, constants)
            return compute

        return register_kernel

    def into(self, op: str) -> Callable[[IntoPlanner], IntoPlanner]:
        """Decorate the planner of ``op``; see :class:`IntoKernel`."""

        def register_planner(planner: IntoPlanner) -> IntoPlanner:
            assert op not in self.kernels, f'{self.name} has two kernels for {op}'
            self.kernels[op] = IntoKernel(op, planner)
            return planner

        return register_planner

    def fuser(self, find: Fuser) -> Fuser:
        """Decorate a function that finds groups; earlier ones have the first choice."""
        self.fusers.append(find)
        return find

    def groups(self, program: Program, constants: dict[str, torch.Tensor]) -> list[FusedGroup]:
        """Disjoint groups of instructions that this set computes in one go.

        Args:
            program (Program): Integer program.
            constants (dict[str, torch.Tensor]): Value name -> constant.
        """
        return find_groups(program, constants, self.fusers)

    def plan(self, op: str, operands: list[Operand], attrs: dict) -> Optional[Run]:
        """Make an instruction ready; None if this set has nothing for it. See :class:`Kernel`."""
        kernel = self.kernels.get(op)
        return None if kernel is None else kernel.plan(operands, attrs)


SETS: dict[str, KernelSet] = {}


def register(kernel_set: KernelSet) -> KernelSet:
    """Make a set known under its name.

    Raises:
        AssertionError: Another set has that name.
    """
    assert SETS.setdefault(kernel_set.name, kernel_set) is kernel_set, \
        f'two kernel sets are called {kernel_set.name}'
    return kernel_set
