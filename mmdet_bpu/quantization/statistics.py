"""What calibration keeps of a tensor: enough for every criterion to find a scale without an image."""
from typing import Any, Dict, Iterable, Mapping, Tuple, Union

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmdet_bpu.kernels import compiled_loops
from mmdet_bpu.quantization import observers_cpu

BINS = 2048
"""Bins of a histogram, unless an observer asks for another number."""


def reduced(tensor: Tensor, op) -> Tensor:
    """``tensor`` combined over all processes, in place."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor, op)
    return tensor


def from_first_rank(tensors: Iterable[Tensor]) -> None:
    """Give all processes the tensors of the first, in place."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


class Statistics(nn.Module):
    """Magnitudes of a tensor over all batches: their histogram, and each batch's largest.

    The histogram covers ``[0, limit)``; ``limit`` is a power of two that doubles when a larger
    value comes (neighbouring bins are added), so counts stay exact and histograms of several
    ranks can be added. Values that are not finite are skipped.

    Args:
        bins (int): Even number of bins. Defaults to :data:`BINS`.

    Attributes:
        counts (Tensor): float64 (bins, ).
        limit (Tensor): float64 (1, ); 0 before anything was counted.
        largest (Tensor): float32 (1, ); of the batch that runs, -1 before anything was seen.
        history (Tensor): float32 (n, ); the same of the batches that have ended, in order, in its first
            ``ended`` elements.
    """

    def __init__(self, bins: int = BINS) -> None:
        super().__init__()
        self.bins = bins
        self.ended = 0
        self.register_buffer('history', torch.full((16, ), -1.0), persistent=False)
        self.register_buffer('counts', torch.zeros(bins, dtype=torch.float64), persistent=False)
        self.register_buffer('limit', torch.zeros(1, dtype=torch.float64), persistent=False)
        self.register_buffer('largest', torch.full((1, ), -1.0), persistent=False)

    @property
    def arrays(self) -> Tuple[Tensor, Tensor, Tensor]:
        """What ``observers_cpu.Tally`` takes."""
        return self.largest, self.counts, self.limit

    def observe(self, x: Tensor) -> Union[bool, Tensor]:
        """Count the values of ``x`` (any shape); returns whether there is NaN in it."""
        if not x.numel():
            return False
        x = x.detach().float()
        if compiled_loops.usable() and compiled_loops.fits(x):
            return observers_cpu.take_in(x, *self.arrays)
        magnitude, nan = _finite_magnitude(x)
        largest = magnitude.amax()
        torch.maximum(self.largest, largest, out=self.largest)
        self._widen(_power_of_two_above(largest).to(self.limit))
        share = magnitude * (1 / self.limit).to(magnitude)
        bins = (share * self.bins).long().clamp_(max=self.bins - 1)
        bins[share < 0] = self.bins  # infinities and NaN, which are not counted
        # Not torch.histc, which is not deterministic on CUDA.
        self.counts += torch.bincount(bins.flatten(), minlength=self.bins + 1)[:self.bins].to(self.counts)
        return nan

    def end_batch(self) -> None:
        """What comes now is of another batch."""
        if self.ended == len(self.history):
            self.history = torch.cat([self.history, torch.full_like(self.history, -1.0)])
        self.history[self.ended] = self.largest[0]
        self.ended += 1
        self.largest.fill_(-1.0)

    @property
    def extremes(self) -> Tensor:
        """Largest magnitudes of the batches in which anything finite was seen, float32 (n, )."""
        every = torch.cat([self.history[:self.ended], self.largest])
        return every[every >= 0]

    def _widen(self, limit: Tensor) -> None:
        """Let the histogram reach to ``limit`` if it does not, merging bins; nothing waits."""
        limit = torch.maximum(self.limit, limit)
        doublings = torch.where(self.limit > 0, torch.log2(limit / self.limit).round(), 0)
        bins = torch.arange(self.bins, device=limit.device) >> doublings.long()
        self.counts.copy_(torch.zeros_like(self.counts).index_add_(0, bins, self.counts))
        self.limit.copy_(limit)

    def reduce(self) -> None:
        """Combine the statistics of all ranks; every rank ends with the same.

        Batches that ran at once on several ranks count as one.
        """
        self._widen(reduced(self.limit.clone(), dist.ReduceOp.MAX))
        reduced(self.counts, dist.ReduceOp.SUM)
        reduced(self.largest, dist.ReduceOp.MAX)
        number = reduced(torch.tensor([self.ended], device=self.largest.device), dist.ReduceOp.MAX)
        extremes = torch.full((int(number), ), -1.0, device=self.largest.device)
        extremes[:self.ended] = self.history[:self.ended]
        self._remember(reduced(extremes, dist.ReduceOp.MAX))

    def reset(self) -> None:
        """Forget everything."""
        self._remember(self.history[:0])
        self.counts.zero_()
        self.limit.zero_()
        self.largest.fill_(-1.0)

    def _remember(self, extremes: Tensor) -> None:
        self.history, self.ended = extremes.clone(), len(extremes)
        if not len(extremes):
            self.history = extremes.new_full((16, ), -1.0)

    def as_plain(self) -> Dict[str, Any]:
        """Plain data; the empty end of the histogram left out."""
        used = int(self.counts.nonzero().max()) + 1 if bool(self.counts.any()) else 0
        return dict(bins=self.bins, limit=self.limit.item(),
                    counts=self.counts[:used].to(torch.int64).cpu(), extremes=self.extremes.cpu())

    def take(self, plain: Mapping[str, Any]) -> None:
        """Be what :meth:`as_plain` gave, of the same number of bins."""
        self.reset()
        self.counts[:len(plain['counts'])] = plain['counts'].to(self.counts)
        self.limit.fill_(plain['limit'])
        self._remember(plain['extremes'].to(self.history))


def _finite_magnitude(x: Tensor) -> Tuple[Tensor, Tensor]:
    """Magnitudes of ``x`` with -1 for what is not finite, and whether there is NaN in it.

    On a GPU nothing waits for a result.
    """
    magnitude = x.abs().flatten()
    top = magnitude.amax()  # NaN if there is any
    if x.is_cuda or not torch.isfinite(top):
        magnitude = torch.nan_to_num_(magnitude, nan=-1.0, posinf=-1.0)
    return magnitude, torch.isnan(top)


def _power_of_two_above(largest: Tensor) -> Tensor:
    """The least power of two above a magnitude, from 2**-20 on; 0 for -1, which is none."""
    exponent = torch.frexp(largest).exponent.double()
    limit = torch.where(largest > 0, torch.exp2(exponent), 0.0).clamp(min=2.0**-20)
    return torch.where(largest < 0, 0.0, limit)
