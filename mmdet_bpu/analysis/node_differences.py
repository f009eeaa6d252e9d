"""How far integers and outputs of another runtime are from the QAT model's, rounding by rounding."""
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Sequence

import numpy as np

SPAN = 32767
"""LSB of int16 in the largest magnitude of an output that is not rounded: the unit in which its
elements count as differing."""


@dataclass
class NodeDifference:
    """One rounding over all images.

    Attributes:
        site (str), dtype (str): Of the tensor.
        elements (int): How many were compared.
        differing (int), beyond (int): Of these, how many differ, and by more than 1 LSB.
        largest (int): LSB.
    """
    site: str
    dtype: str
    elements: int = 0
    differing: int = 0
    beyond: int = 0
    largest: int = 0

    def add(self, found: np.ndarray, expected: np.ndarray) -> None:
        """Take in one image."""
        off = np.abs(found.astype(np.int64) - expected.astype(np.int64))
        self.elements += off.size
        self.differing += int((off > 0).sum())
        self.beyond += int((off > 1).sum())
        self.largest = max(self.largest, int(off.max(initial=0)))


@dataclass
class OutputDifference:
    """One output that is not rounded, over all images.

    Attributes:
        elements (int): How many were compared.
        differing (int): Of these, how many are further apart than ``1 / SPAN`` of the largest magnitude.
        largest (float): Largest difference over the largest magnitude.
    """
    elements: int = 0
    differing: int = 0
    largest: float = 0.0

    def add(self, found: np.ndarray, expected: np.ndarray) -> None:
        """Take in one image."""
        off = np.abs(found.astype(np.float64) - expected) / max(np.abs(expected).max(initial=0), 1e-30)
        self.elements += off.size
        self.differing += int((off * SPAN > 1).sum())
        self.largest = max(self.largest, float(off.max(initial=0)))


@dataclass
class NodeComparison:
    """All roundings of a network.

    Attributes:
        nodes (dict[str, NodeDifference]): Value -> its difference, in the order of the network.
        outputs (dict[str, OutputDifference]): The same of public outputs that are not rounded.
        rounded_outputs (Sequence[str]): Values of the others.
    """
    nodes: Dict[str, NodeDifference]
    outputs: Dict[str, OutputDifference] = field(default_factory=dict)
    rounded_outputs: Sequence[str] = ()

    def add(self, integers: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray],
            expected: Mapping[str, np.ndarray], expected_outputs: Mapping[str, np.ndarray]) -> None:
        """Take in one image: integers by value, and outputs by public name."""
        for value, node in self.nodes.items():
            node.add(integers[value], expected[value])
        for public, output in self.outputs.items():
            output.add(outputs[public], expected_outputs[public])

    def of(self, dtype: str) -> List[NodeDifference]:
        """The roundings to a dtype."""
        return [node for node in self.nodes.values() if node.dtype == dtype]

    def elements(self, dtype: str) -> int:
        """How many elements of a dtype were compared."""
        return sum(node.elements for node in self.of(dtype))

    def within(self, dtype: str) -> float:
        """Share of the elements of a dtype that differ by 1 LSB at most; 1 without any."""
        return 1 - sum(node.beyond for node in self.of(dtype)) / max(self.elements(dtype), 1)

    def differing(self, dtype: str) -> float:
        """Share of the elements of a dtype that differ; 0 without any."""
        return sum(node.differing for node in self.of(dtype)) / max(self.elements(dtype), 1)

    def largest_output(self) -> float:
        """Largest difference of any output that is not rounded, over its largest magnitude."""
        return max((output.largest for output in self.outputs.values()), default=0.0)

    def differing_outputs(self) -> float:
        """Share of the elements of all outputs that differ, rounded or not."""
        rows = [*self.outputs.values(), *(self.nodes[value] for value in self.rounded_outputs)]
        return sum(row.differing for row in rows) / max(sum(row.elements for row in rows), 1)
