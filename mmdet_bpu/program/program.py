"""The integer module as a plain list of instructions: what compiler and executors read.

Inputs and outputs keep their public names; every other value has the name it has in the text, ``%``
and the number of the result.
"""
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmdet_bpu.program.dtypes import ELEMENT_BYTES


@dataclass(frozen=True)
class TensorType:
    """Static shape, element name and scale; the scale is None for indices, masks and values
    with one scale per channel."""

    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * ELEMENT_BYTES[self.dtype]


@dataclass
class Value:
    """A tensor of the program; ``data`` is set for constants (read-only, in ``type``'s shape)."""

    name: str
    type: TensorType
    data: np.ndarray | None = None


@dataclass
class Instruction:
    """One operation, such as 'bpu.conv2d', on values by name; ``attrs`` are JSON-able."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any]
    site: str = ''


@dataclass(frozen=True)
class TensorSpec:
    """Input or output of an executable."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None


@dataclass
class Program:
    """Values by name, names of inputs and outputs, instructions in order, metadata."""

    values: dict[str, Value]
    inputs: list[str]
    outputs: list[str]
    instructions: list[Instruction]
    metadata: dict = field(default_factory=dict)

    def spec(self, name: str) -> TensorSpec:
        """Description of an input or output."""
        kind = self.values[name].type
        return TensorSpec(name, kind.shape, kind.dtype, kind.scale)

    def kernel_attrs(self, instruction: Instruction) -> dict[str, Any]:
        """Attributes as the kernels take them: with ``out_dtypes`` and ``out_shapes``."""
        types = [self.values[name].type for name in instruction.outputs]
        return {**instruction.attrs, 'out_dtypes': [each.dtype for each in types],
                'out_shapes': [each.shape for each in types]}
