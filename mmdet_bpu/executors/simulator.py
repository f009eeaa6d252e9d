"""Run a ``.hbm`` from its bytes alone: instructions in order, on one planned arena.

Every activation is a view of the arena at its planned offset. A result is written there and read
back from there, so a wrong offset, a lifetime that ends too early or two instructions in the wrong
order change the numbers; nothing is shared with the interpreter of the integer module but the
kernels. What a kernel set computes in one go reads its inputs from the arena and writes its outputs
there, see :mod:`mmdet_bpu.executors.arena_order`; what lies between never gets there.
"""
from math import prod
from typing import Callable

import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.arena_order import ArenaOrder
from mmdet_bpu.executors.input_check import check_inputs
from mmdet_bpu.executors.network_list import NetworkList
from mmdet_bpu.executors.planning import Step, plan_program
from mmdet_bpu.kernels.kernel_set import IntoRun
from mmdet_bpu.program.container import NOTICE
from mmdet_bpu.program.dtypes import TORCH_DTYPES
from mmdet_bpu.program.hbm_file import CompiledNetwork, read_hbm
from mmdet_bpu.program.program import Instruction

# What the arena holds before an input is loaded. Not zero, so that a value that is read before
# it is written is seen in the output; and the same for every run, so that runs are repeatable.
STALE_BYTE = 0x5A


class HbmSimulator(NetworkList):
    """Executable form of a ``.hbm`` of this package.

    Args:
        path_or_bytes: The file, or its content.
        kernels (str): Name of the kernel set. Defaults to 'reference'.
        fuse (bool): Let the kernel set compute several instructions in one go. Defaults to True.

    Attributes:
        header (dict): Header of the file: march, producer, notice, section table.
        notice (str): Where this file runs, and how to make one for the board.

    Raises:
        BpuError: Missing, foreign, truncated or altered file, an unknown kernel set, an op without
            a kernel, or a memory plan that leaves the arena.
    """

    def __init__(self, path_or_bytes, kernels: str = 'reference', fuse: bool = True) -> None:
        file = read_hbm(path_or_bytes)
        super().__init__([NetworkSimulator(network, kernels, fuse) for network in file.networks],
                         file.metadata)
        self.header = file.header
        self.notice = NOTICE


class NetworkSimulator:
    """One network of a ``.hbm`` on an arena of its own.

    Args:
        network (CompiledNetwork): Instructions in the order they run, and their memory plan.
        kernels (str): Name of the kernel set. Defaults to 'reference'.
        fuse (bool): Let the kernel set compute several instructions in one go. Defaults to True.

    Attributes: see :class:`mmdet_bpu.executors.protocol.Network`.

    Raises:
        BpuError: See :class:`HbmSimulator`.
    """

    def __init__(self, network: CompiledNetwork, kernels: str = 'reference',
                 fuse: bool = True) -> None:
        self.name = network.name
        program, self._plan = network.program, network.plan
        self.inputs = [program.spec(name) for name in program.inputs]
        self.outputs = [program.spec(name) for name in program.outputs]
        self._arena = torch.empty(self._plan.arena_bytes, dtype=torch.uint8)
        self._tensors = {name: self._place(name, value) for name, value in program.values.items()
                         if value.data is not None or name in self._plan.buffers}
        for instruction in program.instructions:
            self._places(instruction)
        constants = {name: self._tensors[name] for name, value in program.values.items()
                     if value.data is not None}
        order = ArenaOrder(program, self._plan)
        steps, self.kernel_counts = plan_program(program, constants, kernels, fuse, order.allows)
        # What happens at the beginning of a step comes before what happens in it.
        happenings = [each for step in steps for each in self._happenings(step, order)]
        self._work = [work for _, work in sorted(happenings, key=lambda each: each[0])]

    def run(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See :meth:`mmdet_bpu.executors.protocol.Network.run`."""
        check_inputs(self.inputs, inputs)
        self._arena.fill_(STALE_BYTE)
        for spec in self.inputs:
            self._tensors[spec.name].copy_(inputs[spec.name])
        with torch.no_grad():
            for work in self._work:
                work()
        return {spec.name: self._tensors[spec.name].clone() for spec in self.outputs}

    def _happenings(self, step: Step, order: ArenaOrder
                    ) -> list[tuple[tuple[int, int], Callable[[], None]]]:
        """What a step does, each with its place in time: copies of inputs, then its run."""
        names = step.instruction.inputs
        operands, places = self._places(step.instruction)
        saved = order.saved_inputs(step.members, names)
        copies = {name: torch.empty_like(self._tensors[name]) for name in saved}
        operands = [copies.get(name, place) for name, place in zip(names, operands)]
        in_place = isinstance(step.run, IntoRun) and not any(
            order.overlap(name, other) for name in names if name not in saved
            for other in step.instruction.outputs)

        def save(name: str) -> Callable[[], None]:
            return lambda: copies[name].copy_(self._tensors[name])

        def run() -> None:
            if in_place:
                step.run.into(operands, places)
                return
            for place, result in zip(places, step.run(operands)):
                place.copy_(self._detached(result))

        return [((at, 0), save(name)) for name, at in saved.items()] + [
            ((step.members[-1], 1), run)]

    def _detached(self, result: torch.Tensor) -> torch.Tensor:
        """A result out of the arena: data movement gives views of its operand there."""
        inside = result.untyped_storage().data_ptr() == self._arena.untyped_storage().data_ptr()
        return result.clone() if inside else result

    def _place(self, name: str, value) -> torch.Tensor:
        """A constant as it is stored, or the view of the arena at the planned offset."""
        dtype = TORCH_DTYPES[value.type.dtype]
        if value.data is not None:
            return torch.from_numpy(value.data).to(dtype)
        buffer = self._plan.buffers[name]
        nbytes = prod(value.type.shape) * dtype.itemsize
        place = self._arena[buffer.offset:buffer.offset + nbytes]
        if len(place) != nbytes or buffer.offset % dtype.itemsize:
            raise BpuError(f"section 'memory': {name} of {nbytes} bytes at offset {buffer.offset} "
                           f'does not fit the arena of {len(self._arena)} bytes')
        return place.view(dtype).view(value.type.shape)

    def _places(self, instruction: Instruction) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Where an instruction reads and where it writes."""
        try:
            return ([self._tensors[name] for name in instruction.inputs],
                    [self._tensors[name] for name in instruction.outputs])
        except KeyError as error:
            raise BpuError(f"section 'memory': no place for {error} of {instruction.op} at "
                           f'{instruction.site}') from None
