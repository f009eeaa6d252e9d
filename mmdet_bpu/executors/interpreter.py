"""Run an integer program instruction by instruction through the kernels."""
from typing import Callable

import torch

from mmdet_bpu.executors.buffers import Buffers
from mmdet_bpu.executors.input_check import check_inputs
from mmdet_bpu.executors.planning import Step, plan_program
from mmdet_bpu.executors.protocol import Network
from mmdet_bpu.kernels.kernel_set import IntoRun
from mmdet_bpu.program.hbm_file import ONLY_NETWORK
from mmdet_bpu.program.program import Instruction, Program, TensorSpec

Trace = Callable[[Instruction, list[torch.Tensor], list[torch.Tensor]], None]
"""Called after each step with its instruction, inputs and outputs, which it must not change."""


class Interpreter:
    """Reference executable of an integer program: a network, and an executable of that one.

    Args:
        program (Program): What to run.
        device: Where constants are kept and instructions run.
        kernels (str): Name of the kernel set. Defaults to 'reference', which every other device
            than the CPU takes.
        name (str): Of the network. Defaults to that of an only one.
        fuse (bool): Let the kernel set compute several instructions in one go; what lies between
            them is then not stored. Defaults to True.

    Attributes:
        program (Program): What is run.
        metadata (dict): The deployment contract kept in the module.

    The others are those of :class:`mmdet_bpu.executors.protocol.Executable`.

    Raises:
        BpuError: An unknown kernel set, or an instruction that the numeric contract excludes; the
            message names its site.
    """

    def __init__(self, program: Program, device: str = 'cpu',
                 kernels: str = 'reference', name: str = ONLY_NETWORK,
                 fuse: bool = True) -> None:
        self.name, self.program = name, program
        self.metadata = program.metadata
        self.device = torch.device(device)
        self.inputs: list[TensorSpec] = [program.spec(name) for name in program.inputs]
        self.outputs: list[TensorSpec] = [program.spec(name) for name in program.outputs]
        # A copy: the program's arrays may be read-only views, which torch cannot represent.
        self._constants = {
            name: torch.from_numpy(value.data.copy()).to(self.device)
            for name, value in program.values.items() if value.data is not None}
        if self.device.type != 'cpu':
            kernels = 'reference'  # other sets read and write the memory of this host
        self._steps, self.kernel_counts = plan_program(program, self._constants, kernels, fuse)
        self._dead = _last_uses(program, self._steps)
        self._buffers = Buffers(program, self._steps, self._dead).tensors

    @property
    def networks(self) -> list[Network]:
        return [self]

    def run(self, inputs: dict[str, torch.Tensor],
            trace: Trace | None = None) -> dict[str, torch.Tensor]:
        """Run one inference.

        Args:
            inputs: Integer tensor of each input, in its shape and dtype.
            trace: Called after each step with its instruction (of op ``fused`` for several in one
                go), its inputs and its outputs.

        Returns:
            Integer tensor of each output, by name.

        Raises:
            BpuError: An input is missing, unknown, or of another shape or dtype.
        """
        check_inputs(self.inputs, inputs)
        values = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        with torch.no_grad():
            for step, dead in zip(self._steps, self._dead):
                operands = [self._constants[name] if name in self._constants else values[name]
                            for name in step.instruction.inputs]
                results = self._results(step, operands)
                values.update(zip(step.instruction.outputs, results))
                if trace is not None:
                    trace(step.instruction, operands, results)
                for name in dead:
                    del values[name]
        return {name: values[name].clone() for name in self.program.outputs}

    def _results(self, step: Step, operands: list[torch.Tensor]) -> list[torch.Tensor]:
        if not isinstance(step.run, IntoRun):
            return step.run(operands)
        results = [self._buffers[name] for name in step.instruction.outputs]
        step.run.into([operand.contiguous() for operand in operands], results)
        return results


def _last_uses(program: Program, steps: list[Step]) -> list[list[str]]:
    """Per step, the values that nothing needs after it; outputs and constants are kept."""
    kept = set(program.outputs)
    kept.update(name for name, value in program.values.items() if value.data is not None)
    dead = []
    for step in reversed(steps):
        names = sorted(set(step.instruction.inputs + step.instruction.outputs) - kept)
        kept.update(names)
        dead.append(names)
    return dead[::-1]
