"""How far two versions of a tensor lie apart, gathered image by image.

``SQNR = 10 log10(sum x^2 / sum (x - y)^2)`` dB, the signal to quantization noise ratio of a tensor
``x`` whose quantized form is ``y``. Sums are over all elements of all images, in float64; nothing
of an image is kept but its sums. Elements that are not finite (two-stage proposals hold infinities
on purpose) count as saturated and for nothing else.
"""
import math
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

import torch
from torch import Tensor

LOWEST, HIGHEST = -100.0, 200.0
"""dB that a ratio is cut at: beyond them one of its sides is rounding of float64."""


def ratio_db(signal: float, noise: float) -> Optional[float]:
    """SQNR in dB, from :data:`LOWEST` to :data:`HIGHEST`; None where there is no noise."""
    if noise == 0:
        return None
    if signal == 0:
        return LOWEST
    return min(max(10 * math.log10(signal / noise), LOWEST), HIGHEST)


class Distance:
    """Distance of tensors ``y`` from what they should be, ``x``.

    Attributes:
        signal (float): Sum of x^2.
        noise (float): Sum of (x - y)^2.
        largest (float): Largest \\|x - y\\|.
        elements (int): Finite ones that were compared.
        last (tuple[float, float]): Signal and noise of the image that was added last.
    """

    def __init__(self) -> None:
        self.signal = self.noise = self.other = self.product = self.largest = 0.0
        self.elements = 0
        self.last = 0.0, 0.0

    def add(self, x: Tensor, y: Tensor) -> Optional[float]:
        """Take in one image's tensors, float64 of one shape and finite; returns its own SQNR."""
        self.last = 0.0, 0.0
        if not x.numel():
            return None
        x, y = x.flatten(), y.flatten()
        difference = x - y
        signal, noise = torch.dot(x, x).item(), torch.dot(difference, difference).item()
        self.last = signal, noise
        self.signal += signal
        self.noise += noise
        self.other += torch.dot(y, y).item()
        self.product += torch.dot(x, y).item()
        self.largest = max(self.largest, *(abs(end.item()) for end in difference.aminmax()))
        self.elements += x.numel()
        return ratio_db(signal, noise)

    @property
    def sqnr(self) -> Optional[float]:
        """dB; None where nothing differs."""
        return ratio_db(self.signal, self.noise)

    @property
    def cosine(self) -> Optional[float]:
        """Cosine of the angle between both; None where one of them is zero."""
        length = math.sqrt(self.signal * self.other)
        return self.product / length if length else None


@dataclass(frozen=True)
class Grid:
    """The integers that a tensor is rounded to.

    Attributes:
        scale (float): What one LSB stands for.
        low (int), high (int): Ends of the range.
    """
    scale: float
    low: int
    high: int


class TensorErrors:
    """Errors of one quantized tensor.

    Two errors are told apart: the *local* one, of rounding this tensor alone, is between what its
    quantizer is given and what it makes of that; the *accumulated* one is between what the float
    model has there and what arrives when everything before is quantized too.

    Args:
        grid (Grid): Of its integers.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.local, self.accumulated = Distance(), Distance()
        self._inside = [0.0, 0.0]  # signal, noise of what is inside the range
        self.elements = self.below = self.above = self.nonzero = self.zeroed = 0
        self.channels: Optional[Tuple[Tensor, Tensor]] = None  # signal, noise of each
        self.worst: Optional[Tuple[float, int]] = None

    def add(self, image: int, reference: Tensor, given: Tensor, rounded: Tensor) -> None:
        """Take in one image.

        Args:
            image (int): Its number.
            reference (Tensor): What the float model has, float32 of any shape, channels last.
            given (Tensor): What the quantizer was given.
            rounded (Tensor): What it made of that.
        """
        self.elements += given.numel()
        cut = self._add_saturated(given)
        nonzero = int(given.count_nonzero())
        self.nonzero += nonzero
        self.zeroed += nonzero - int(rounded.count_nonzero())
        given, rounded = given.double(), rounded.double()
        self._add_channels(given, rounded)
        self.local.add(*_finite(given, rounded))
        inside = Distance() if cut is not None else self.local
        if cut is not None:
            inside.add(*_finite(given[~cut], rounded[~cut]))
        self._inside = [known + new for known, new in zip(self._inside, inside.last)]
        ratio = self.accumulated.add(*_finite(reference.double(), rounded))
        if ratio is not None and (self.worst is None or ratio < self.worst[0]):
            self.worst = ratio, image

    def _add_saturated(self, given: Tensor) -> Optional[Tensor]:
        """Count what lies beyond the range; a mask of it, None if nothing does."""
        if not given.numel():
            return None
        low, high = self.grid.low - 0.5, self.grid.high + 0.5
        ends = torch.stack(given.aminmax()) / torch.tensor(self.grid.scale)
        if ends[0] >= low and ends[1] <= high:
            return None
        levels = given / torch.tensor(self.grid.scale)
        below, above = levels < low, levels > high
        self.below += int(below.sum())
        self.above += int(above.sum())
        return below | above

    def _add_channels(self, given: Tensor, rounded: Tensor) -> None:
        """Signal and noise of each slice of the last axis, where a feature map has its channels."""
        count = given.shape[-1] if given.dim() else 1
        given, noise = given.reshape(-1, count), (given - rounded).reshape(-1, count)
        if not _all_finite(given):
            finite = torch.isfinite(given)
            given, noise = (torch.where(finite, part, 0.0) for part in (given, noise))
        sums = given.square().sum(0), noise.square_().sum(0)
        if self.channels is not None:
            sums = tuple(known + new for known, new in zip(self.channels, sums))
        self.channels = sums

    @property
    def inside_sqnr(self) -> Optional[float]:
        """SQNR of the elements inside the range alone, dB; None where nothing differs there."""
        return ratio_db(*self._inside)

    @property
    def channel_sqnr(self) -> Optional[float]:
        """Median over the channels that hold anything of their own SQNR, dB; None without any.

        One channel far larger than the others hides their noise from the SQNR of the tensor: its
        signal is most of the sum. It does not hide from a median.
        """
        if self.channels is None:
            return None
        signal, noise = (part[self.channels[0] > 0] for part in self.channels)
        if not len(signal):
            return None
        ratios = 10 * torch.log10(signal / noise.clamp(min=1e-300))
        return ratios.clamp(LOWEST, HIGHEST).median().item()

    def row(self) -> Dict[str, object]:
        """Everything as plain data: dB, shares of all elements, LSB. None: nothing to divide by."""
        total, lsb = max(self.elements, 1), self.grid.scale
        channels = None if self.channels is None else self.channels[0]
        return dict(
            sqnr_db=self.local.sqnr, channel_sqnr_db=self.channel_sqnr,
            inside_sqnr_db=self.inside_sqnr, cosine=self.local.cosine,
            saturated=(self.below + self.above) / total, saturated_below=self.below / total,
            saturated_above=self.above / total, zeroed=self.zeroed / max(self.nonzero, 1),
            max_lsb=self.local.largest / lsb,
            accumulated_sqnr_db=self.accumulated.sqnr, accumulated_cosine=self.accumulated.cosine,
            accumulated_max_lsb=self.accumulated.largest / lsb,
            worst_image=None if self.worst is None else self.worst[1],
            rms_lsb=math.sqrt(self.local.signal / max(self.local.elements, 1)) / lsb,
            dead_channels=0 if channels is None else int((channels == 0).sum()),
            channels=0 if channels is None else len(channels))


def _all_finite(x: Tensor) -> bool:
    """Whether no element is infinite or NaN; a sum that overflows counts as not."""
    return bool(torch.isfinite(x.sum()))


def _finite(x: Tensor, y: Tensor) -> Tuple[Tensor, Tensor]:
    """Both without the elements of which one is not finite."""
    if _all_finite(x) and _all_finite(y):
        return x, y
    finite = torch.isfinite(x) & torch.isfinite(y)
    return x[finite], y[finite]
