"""Histograms of a tensor before and after it is quantized, in its own integers."""
from typing import Dict, List

import torch
from torch import Tensor

from mmdet_bpu.analysis.tensor_errors import Grid

BINS_INSIDE = 128  # of the integer range: 2 integers of int8 a bin, 512 of int16
BINS_BEYOND = 16  # on each side, for what saturates; the outermost hold all that lies further out


class LevelHistograms:
    """How often each range of integers comes, before rounding and after.

    Bins hold whole integers: their bounds lie half between two, so that rounding moves nothing from
    one bin to another but what saturates.

    Args:
        grid (Grid): Of the tensor.

    Attributes:
        before (Tensor), after (Tensor): int64 counts of the bins.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.width = (grid.high - grid.low + 1) // BINS_INSIDE
        self.bins = BINS_INSIDE + 2 * BINS_BEYOND
        self.start = grid.low - 0.5 - BINS_BEYOND * self.width
        self.before = torch.zeros(self.bins, dtype=torch.int64)
        self.after = torch.zeros(self.bins, dtype=torch.int64)

    def add(self, given: Tensor, rounded: Tensor) -> None:
        """Take in one image's tensor as the quantizer was given it, and what came out."""
        self.before += self._counts(given)
        self.after += self._counts(rounded)

    def _counts(self, x: Tensor) -> Tensor:
        levels = x.flatten().double() / self.grid.scale
        levels = levels[~levels.isnan()]
        position = (levels - self.start).div_(self.width).floor_().clamp_(0, self.bins - 1)
        return torch.bincount(position.long(), minlength=self.bins)

    def as_plain(self) -> Dict[str, object]:
        """``start`` and ``width`` of the bins in LSB, and both lists of counts."""
        before, after = (counts.tolist() for counts in (self.before, self.after))
        return dict(start=self.start, width=self.width, before=before, after=after)


def bounds(plain: Dict[str, object]) -> List[float]:
    """Bounds of the bins of :meth:`LevelHistograms.as_plain`, in LSB."""
    return [plain['start'] + index * plain['width'] for index in range(len(plain['before']) + 1)]
