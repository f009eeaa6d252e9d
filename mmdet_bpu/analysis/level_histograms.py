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
        before (Tensor): int64 counts of the bins before rounding.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.width = (grid.high - grid.low + 1) // BINS_INSIDE
        self.bins = BINS_INSIDE + 2 * BINS_BEYOND
        self.start = grid.low - 0.5 - BINS_BEYOND * self.width
        self.before = torch.zeros(self.bins, dtype=torch.int64)

    def add(self, given: Tensor) -> None:
        """Take in one image's tensor, float32, as the quantizer was given it; NaN is left out."""
        levels = given.flatten() / torch.tensor(self.grid.scale, dtype=torch.float32)
        position = levels.sub_(self.start).div_(self.width).clamp_(0, self.bins - 1)
        if bool(torch.isnan(position.sum())):
            position = position[~position.isnan()]
        self.before += torch.bincount(position.to(torch.int32), minlength=self.bins)

    @property
    def after(self) -> Tensor:
        """int64 counts after rounding: what lies beyond an end is in the bin of that end."""
        first, last = BINS_BEYOND, BINS_BEYOND + BINS_INSIDE
        counts = torch.zeros_like(self.before)
        counts[first:last] = self.before[first:last]
        counts[first] += self.before[:first].sum()
        counts[last - 1] += self.before[last:].sum()
        return counts

    def as_plain(self) -> Dict[str, object]:
        """``start`` and ``width`` of the bins in LSB, and both lists of counts."""
        before, after = (counts.tolist() for counts in (self.before, self.after))
        return dict(start=self.start, width=self.width, before=before, after=after)


def bounds(plain: Dict[str, object]) -> List[float]:
    """Bounds of the bins of :meth:`LevelHistograms.as_plain`, in LSB."""
    return [plain['start'] + index * plain['width'] for index in range(len(plain['before']) + 1)]
