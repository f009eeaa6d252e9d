"""What an executable is to those who feed it: evaluation, pictures, comparison, benchmarks."""
from collections import Counter
from typing import Protocol, runtime_checkable

import torch

from mmdet_bpu.program.program import TensorSpec

Tensors = dict[str, torch.Tensor]
KernelCounts = dict[str, Counter]
"""Name of a kernel set -> op -> how many instructions it computes."""


@runtime_checkable
class Network(Protocol):
    """Integers in, integers out, without a step of the host in between.

    Attributes:
        name (str): Unique within its executable.
        inputs (list[TensorSpec]): Name, shape, dtype and scale of each input.
        outputs (list[TensorSpec]): The same for each output.
        kernel_counts (KernelCounts): Which kernel sets compute it.
    """
    name: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    kernel_counts: KernelCounts

    def run(self, inputs: Tensors) -> Tensors:
        """Run one inference.

        Args:
            inputs (dict[str, torch.Tensor]): Integer tensor of each input, of its shape and dtype.

        Returns:
            dict[str, torch.Tensor]: Integer tensor of each output.

        Raises:
            BpuError: An input is missing, unknown, or of another shape or dtype.
        """


@runtime_checkable
class Executable(Protocol):
    """A detector as integers: its networks, and what the host does around them.

    A detector that the host interrupts, with proposals and then their heads, has several networks;
    every other one has one, and ``inputs``, ``outputs`` and ``run`` are those of that one.

    Attributes:
        networks (list[Network]): At least one, in the order the host runs them.
        metadata (dict): The deployment contract.
        inputs (list[TensorSpec]): Of the only network.
        outputs (list[TensorSpec]): Of the only network.
        kernel_counts (KernelCounts): Over all networks.
    """
    networks: list[Network]
    metadata: dict
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    kernel_counts: KernelCounts

    def run(self, inputs: Tensors) -> Tensors:
        """Run the only network; see :meth:`Network.run`.

        Raises:
            BpuError: There are several networks, or the inputs do not fit.
        """
