"""Fast, exact paths of a requantization, chosen once from the range of its input.

All three paths give the bits of :func:`mmdet_bpu.program.numerics.requantize`:

* ``int32``: the product and its rounding term fit int32;
* ``halves``: the accumulator is cut in a high and a low half word, ``acc = hi * 2**16 + lo``
  with 0 <= lo < 2**16, so both products fit int32, and ``floor(acc * m / 2**16) = hi * m +
  floor(lo * m / 2**16)``. The bits lost by the second floor only matter to tell a tie from a
  value just above it; they are kept as one sticky bit unless no tie can occur;
* ``int64``: anything else.
"""
import numpy as np
import torch

from mmdet_bpu.kernels.reference.blocks import for_each_block, row_blocks
from mmdet_bpu.program.dtypes import INT32_MAX, INTEGER_RANGES, TORCH_DTYPES
from mmdet_bpu.program.numerics import ZERO_SHIFT, IntLike, broadcast_pair, scale_int64


class Requantizer:
    """``clamp(round_half_even(acc * multiplier / 2**shift), low, high)`` over the last dim.

    Args:
        multiplier: One multiplier, or one per channel.
        shift: One shift, or one per channel.
        low (int): Lower end of the result's range (0 after a relu).
        high (int): Upper end of the result's range.
        bound: Largest magnitude of the input, one or per channel. Proves which path is exact.

    Attributes:
        path (str): ``int32``, ``halves`` or ``int64``.
        ties (bool): Whether an input may lie exactly between two results. If none can, adding a
            half and shifting is all there is to rounding.
        largest (int): Bound of the result's magnitude before it is clamped.
    """

    def __init__(self, multiplier: IntLike, shift: IntLike, low: int, high: int, bound: IntLike):
        multiplier, shift = broadcast_pair(multiplier, shift)
        bound = np.broadcast_to(np.asarray(bound, np.int64), np.broadcast_shapes(
            np.shape(bound), multiplier.shape))
        self.low, self.high = low, high
        multiplier = np.where(shift >= ZERO_SHIFT, 0, multiplier)
        if (multiplier != 0).any():
            # The shift of a channel that gives 0 in any case must not spoil the path.
            shift = np.where(multiplier == 0, shift[multiplier != 0].max(), shift)
        else:
            shift = np.full_like(shift, 24)
        if (multiplier == multiplier[0]).all() and (shift == shift[0]).all():
            multiplier, shift = multiplier[:1], shift[:1]
        self.multiplier, self.shift = multiplier, shift
        product = [int(b) * int(m) for b, m in np.broadcast(bound, multiplier)]
        shifts = [int(s) for s in np.broadcast_to(shift, np.broadcast_shapes(
            shift.shape, bound.shape))]
        results = [p >> s if s > 0 else p << min(-s, 64) for p, s in zip(product, shifts)]
        self.largest = max(results) + 1
        self.clamps = self.largest > high or -self.largest < low
        self.ties = self._ties_possible(bound)
        self.path = self._choose_path(list(zip(product, shifts)))
        self._tensors: dict[torch.device, tuple] = {}

    def _ties_possible(self, bound: np.ndarray) -> bool:
        # With m = odd * 2**k, a tie acc * m = 2**(s - 1) mod 2**s needs an acc that is an odd
        # multiple of 2**(s - 1 - k), which an input below that magnitude is not.
        trailing = np.log2(np.maximum(self.multiplier & -self.multiplier, 1)).astype(np.int64)
        smallest = 1 << np.clip(self.shift - 1 - trailing, 0, 62)
        return bool(((bound >= smallest) & (self.multiplier != 0)).any())

    def _choose_path(self, pairs: list[tuple[int, int]]) -> str:
        shifts = [shift for _, shift in pairs]
        if min(shifts) >= 1 and all(
                s <= 30 and p + (1 << s - 1) <= INT32_MAX for p, s in pairs):
            return 'int32'
        if max(shifts) <= 0 and all(p << min(-s, 64) <= INT32_MAX for p, s in pairs):
            return 'int32'
        # The sticky bit needs a bit below the half of the high word: one shift more.
        return 'halves' if min(shifts) >= (18 if self.ties else 17) else 'int64'

    def _constants(self, device: torch.device) -> tuple:
        """Multiplier, shift and rounding term: Python ints if per tensor, tensors if not."""
        if device not in self._tensors:
            shift = self.shift - 16 if self.path == 'halves' else self.shift
            half = (1 << np.maximum(shift, 1) - 1) - int(self.ties)

            def constant(array):
                if (array == array[0]).all():
                    return int(array[0])
                return torch.as_tensor(array.astype(np.int32), device=device)

            self._tensors[device] = constant(self.multiplier), constant(shift), constant(half)
        return self._tensors[device]

    def scale_(self, acc: torch.Tensor) -> torch.Tensor:
        """Scale, round and clamp an int32 chunk, in place where the path allows.

        Args:
            acc (torch.Tensor): int32, shape (..., C) or any shape if per tensor.

        Returns:
            torch.Tensor: Result as int32 or int64, clamped to [low, high].
        """
        if self.path == 'int64':
            value = scale_int64(acc, self.multiplier, self.shift, self.low, self.high)
            return torch.clamp(value, self.low, self.high, out=value)
        multiplier, shift, half = self._constants(acc.device)
        if self.path == 'halves':
            acc = self._high_word_(acc, multiplier)
        else:
            acc = acc.mul_(multiplier)
        if self.shift[0] <= 0:
            acc = acc.bitwise_left_shift_(-shift)
        else:
            if self.ties:
                acc = acc.add_(torch.bitwise_right_shift(acc, shift).bitwise_and_(1))
            acc = acc.add_(half).bitwise_right_shift_(shift)
        if self.clamps:
            torch.clamp(acc, self.low, self.high, out=acc)
        return acc

    def _high_word_(self, acc: torch.Tensor, multiplier) -> torch.Tensor:
        """``floor(acc * multiplier / 2**16)``, its lowest bit set if a tie needs to know a loss."""
        low_word = torch.bitwise_and(acc, 0xffff).mul_(multiplier)
        acc = acc.bitwise_right_shift_(16).mul_(multiplier)
        if not self.ties:
            return acc.add_(low_word.bitwise_right_shift_(16))
        acc = acc.add_(torch.bitwise_right_shift(low_word, 16))
        sticky = low_word.bitwise_and_(0xffff).add_(0xffff).bitwise_right_shift_(16)
        return acc.bitwise_or_(sticky)

    def __call__(self, acc: torch.Tensor, out_dtype: str) -> torch.Tensor:
        """Requantize a whole tensor in cache-sized chunks.

        Args:
            acc (torch.Tensor): Any integer dtype, or float32/float64 holding exact integers;
                contiguous, shape (..., C).
            out_dtype (str): Element type of the result.

        Returns:
            torch.Tensor: Same shape.
        """
        out = torch.empty(acc.shape, dtype=TORCH_DTYPES[out_dtype], device=acc.device)
        if len(self.multiplier) > 1 or len(self.shift) > 1:
            source, target = acc.reshape(-1, acc.shape[-1]), out.view(-1, acc.shape[-1])
        else:
            source, target = acc.reshape(-1, 1), out.view(-1, 1)

        def work(rows: slice) -> None:
            target[rows].copy_(self.scale_(source[rows].to(torch.int32, copy=True)))

        for_each_block(work, row_blocks(*source.shape), acc.device)
        return out


def round_shift_(value: torch.Tensor, bits: int) -> torch.Tensor:
    """``round_half_even(value / 2**bits)`` of an int32 tensor, in place."""
    if not bits:
        return value
    odd = torch.bitwise_right_shift(value, bits).bitwise_and_(1)
    return value.add_(odd).add_((1 << bits - 1) - 1).bitwise_right_shift_(bits)


def output_limits(dtype: str, relu: bool = False) -> tuple[int, int]:
    """Clamp limits of a result: the range of its type, from 0 up after a relu."""
    low, high = INTEGER_RANGES[dtype]
    return (0 if relu else low), high
