"""Two executables' outputs held against each other over images."""
from typing import Any, Dict, List, Mapping, Sequence

from torch import Tensor

from mmdet_bpu.analysis.tensor_errors import Distance
from mmdet_bpu.program.program import TensorSpec

WIDE_TOLERANCE = 2**-14
"""Of the largest magnitude of a sum of 32 bits, which a 15-bit multiplier is 2**-15 of off."""


class OutputAgreement:
    """Per output the largest difference and the share of elements that differ.

    Integers of 8 and 16 bits differ if they are not equal; sums of 32 bits, which float32 does not
    hold exactly, by more than :data:`WIDE_TOLERANCE`.

    Args:
        specs (Sequence[TensorSpec]): The outputs.
    """

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.distances = {name: Distance() for name in self.specs}
        self.differing = dict.fromkeys(self.specs, 0)
        self.worst: Dict[str, Any] = dict.fromkeys(self.specs)

    def add(self, image: int, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
        """Take in float32 outputs of one image."""
        for name, spec in self.specs.items():
            x, y = first[name].double(), second[name].double()
            before = self.distances[name].largest
            self.distances[name].add(x, y)
            if self.distances[name].largest > before:
                self.worst[name] = image
            allowed = spec.scale / 2 if spec.dtype != 'si32' else \
                WIDE_TOLERANCE * x.abs().max().item()
            self.differing[name] += int(((x - y).abs() > allowed).sum())

    def rows(self) -> List[Dict[str, Any]]:
        """A row per output.

        Largest difference in its unit and in LSB (None of sums of 32 bits), share of differing
        elements, SQNR in dB, the image with the largest difference.
        """
        return [self._row(name, spec) for name, spec in self.specs.items()]

    def _row(self, name: str, spec: TensorSpec) -> Dict[str, Any]:
        distance = self.distances[name]
        return dict(
            output=name, dtype=spec.dtype, max_difference=distance.largest,
            max_lsb=None if spec.dtype == 'si32' else round(distance.largest / spec.scale),
            differing_share=self.differing[name] / max(distance.elements, 1),
            sqnr_db=distance.sqnr, worst_image=self.worst[name])
