"""Run a ``.hbm`` from its bytes alone: instructions in order, on one planned arena.

Every activation is a view of the arena at its planned offset. A result is written there and read
back from there, so a wrong offset, a lifetime that ends too early or two instructions in the wrong
order change the numbers; nothing is shared with the interpreter of the integer module but the
kernels.
"""
from math import prod

import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.input_check import check_inputs
from mmdet_bpu.executors.network_list import NetworkList
from mmdet_bpu.executors.planning import plan_program
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

    Attributes:
        header (dict): Header of the file: march, producer, notice, section table.
        notice (str): Where this file runs, and how to make one for the board.

    Raises:
        BpuError: Missing, foreign, truncated or altered file, an unknown kernel set, an op without
            a kernel, or a memory plan that leaves the arena.
    """

    def __init__(self, path_or_bytes, kernels: str = 'reference') -> None:
        file = read_hbm(path_or_bytes)
        super().__init__([NetworkSimulator(network, kernels) for network in file.networks],
                         file.metadata)
        self.header = file.header
        self.notice = NOTICE


class NetworkSimulator:
    """One network of a ``.hbm`` on an arena of its own.

    Args:
        network (CompiledNetwork): Instructions in the order they run, and their memory plan.
        kernels (str): Name of the kernel set. Defaults to 'reference'.

    Attributes: see :class:`mmdet_bpu.executors.protocol.Network`.

    Raises:
        BpuError: See :class:`HbmSimulator`.
    """

    def __init__(self, network: CompiledNetwork, kernels: str = 'reference') -> None:
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
        steps, self.kernel_counts = plan_program(program, constants, kernels, fuse=False)
        self._steps = [(step.run, *self._places(step.instruction)) for step in steps]

    def run(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See :meth:`mmdet_bpu.executors.protocol.Network.run`."""
        check_inputs(self.inputs, inputs)
        self._arena.fill_(STALE_BYTE)
        for spec in self.inputs:
            self._tensors[spec.name].copy_(inputs[spec.name])
        with torch.no_grad():
            for run, operands, results in self._steps:
                for place, result in zip(results, run(operands)):
                    place.copy_(self._detached(result))
        return {spec.name: self._tensors[spec.name].clone() for spec in self.outputs}

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
