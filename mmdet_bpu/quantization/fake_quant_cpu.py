"""Fake quantization on a CPU in one pass over memory each way, by compiled loops.

Values are those of ``clamp(round(x / scale)) * scale`` in float32, bit for bit. What the backward pass
needs is a bit an element, written only for the blocks where something saturates: in most tensors that
are on a good scale nothing does, and their gradients pass without being touched.
"""
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from mmdet_bpu.graph.scales import SMALLEST_SCALE
from mmdet_bpu.kernels.compiled_loops import compiled, elements

# Elements of a block: its temporaries stay in the first-level cache.
BLOCK = 4096

# Eight bytes that are 0 or 1 to eight bits, and back.
_GATHER = np.uint64(0x0102040810204080)
_SPREAD = np.array([sum(1 << 8 * bit for bit in range(8) if byte >> bit & 1)
                    for byte in range(256)], np.uint64)
_SMALLEST = np.float32(SMALLEST_SCALE)
_MAGNITUDE = np.int32(0x7fffffff)


@compiled('void(int64, int64, float32[::1], float32[::1], float32, float32, float32)')
def _round(start, stop, x, out, scale, low, high):
    """Blocks of ``x`` on their grid; ``out`` may be ``x``."""
    grid = np.empty(BLOCK, np.float32)
    for block in range(start, stop):
        source, target = x[block * BLOCK:][:BLOCK], out[block * BLOCK:][:BLOCK]
        for i in range(source.size):
            grid[i] = np.rint(source[i] / scale)
        for i in range(target.size):
            value = grid[i]
            value = high if value > high else value
            value = low if value < low else value
            target[i] = value * scale


@compiled('void(int64, int64, float32[::1], float32[::1], uint8[::1], uint8[::1], '
          'float32, float32, float32, float32)')
def _round_and_mark(start, stop, x, out, stopped, bits, scale, low, high, floor):
    """The same, and which elements no gradient reaches.

    ``stopped``: of each block, whether there are such; only then its ``bits`` are written, of which
    1 stops a gradient. ``floor``: values up to it are stopped as well.
    """
    grid, stops = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint8)
    eights = stops.view(np.uint64)
    for block in range(start, stop):
        source, target = x[block * BLOCK:][:BLOCK], out[block * BLOCK:][:BLOCK]
        stops[source.size:] = 0
        for i in range(source.size):
            value = np.rint(source[i] / scale)
            grid[i] = value
            stops[i] = not ((value <= high) & (value >= low) & (source[i] > floor))
        some = np.uint64(0)
        for i in range(eights.size):
            some |= eights[i]
        stopped[block] = some != 0
        if some:
            packed = bits[block * (BLOCK // 8):][:BLOCK // 8]
            for i in range(packed.size):
                packed[i] = (eights[i] * _GATHER) >> np.uint64(56)
            for i in range(target.size):
                value = grid[i]
                value = high if value > high else value
                value = low if value < low else value
                target[i] = value * scale
        else:
            for i in range(target.size):
                target[i] = grid[i] * scale


@compiled('void(int64, int64, float32[::1], float32[::1], uint8[::1], uint8[::1], uint64[::1])')
def _pass_gradient(start, stop, gradient, out, stopped, bits, spread):
    """The gradient where its bit is 0, else 0."""
    stops = np.empty(BLOCK, np.uint8)
    eights = stops.view(np.uint64)
    kept = np.empty(BLOCK, np.float32)
    for block in range(start, stop):
        source, target = gradient[block * BLOCK:][:BLOCK], out[block * BLOCK:][:BLOCK]
        if not stopped[block]:
            for i in range(source.size):
                target[i] = source[i]
            continue
        packed = bits[block * (BLOCK // 8):][:BLOCK // 8]
        for i in range(packed.size):
            eights[i] = spread[packed[i]]
        for i in range(source.size):
            kept[i] = np.float32(0) if stops[i] else source[i]
        for i in range(target.size):
            target[i] = kept[i]


@compiled('void(int64, int64, float32[:, ::1], float32[:, ::1], float32)')
def _round_rows(start, stop, x, out, high):
    """Rows on a grid of their own, whose last integer is the row's largest magnitude."""
    for row in range(start, stop):
        source, target = x[row], out[row]
        magnitudes = source.view(np.int32)  # of positive numbers, in the same order; NaN is last
        largest = np.int32(0)
        for i in range(magnitudes.size):
            magnitude = magnitudes[i] & _MAGNITUDE
            largest = magnitude if magnitude > largest else largest
        last = np.empty(1, np.int32)
        last[0] = largest
        scale = last.view(np.float32)[0] / high
        scale = _SMALLEST if scale < _SMALLEST else scale
        for i in range(source.size):
            target[i] = np.rint(source[i] / scale) * scale


class Stopped:
    """Which elements of a tensor no gradient reaches.

    Args:
        x (Tensor): A dense float32 tensor.
    """

    def __init__(self, x: Tensor) -> None:
        blocks = -(-x.numel() // BLOCK)
        self.shape, self.stride = x.shape, x.stride()
        self.blocks = np.empty(blocks, np.uint8)
        self.bits = np.empty(blocks * (BLOCK // 8), np.uint8)

    def kept(self, gradient: Tensor, out: Optional[Tensor] = None) -> Tensor:
        """``gradient`` with zeros where it does not pass, in ``out`` or in a new tensor."""
        if gradient.stride() != self.stride:
            laid_out = torch.empty_strided(self.shape, self.stride)
            gradient, out = laid_out.copy_(gradient), laid_out
        out = torch.empty_like(gradient) if out is None else out
        _pass_gradient(self.blocks.size, elements(gradient), elements(out), self.blocks, self.bits,
                       _SPREAD, work=BLOCK)
        return out

    def mask(self) -> Tensor:
        """The same as a tensor of bool; True lets a gradient pass."""
        ones = torch.ones(self.shape).as_strided(self.shape, self.stride)
        return self.kept(ones) != 0


def rounded(x: Tensor, scale: float, low: int, high: int, out: Optional[Tensor] = None) -> Tensor:
    """``clamp(round(x / scale), low, high) * scale`` in ``out``, which may be ``x``, or a new tensor."""
    out = torch.empty_like(x) if out is None else out
    _round(-(-x.numel() // BLOCK), elements(x), elements(out), scale, low, high, work=BLOCK)
    return out


def rounded_and_marked(x: Tensor, scale: float, low: int, high: int, floor: float = -np.inf,
                       out: Optional[Tensor] = None) -> tuple:
    """The same, and :class:`Stopped`; None where all gradients pass.

    Args:
        floor (float): Values up to it are stopped too. Defaults to none.
    """
    out, stopped = torch.empty_like(x) if out is None else out, Stopped(x)
    _round_and_mark(stopped.blocks.size, elements(x), elements(out), stopped.blocks, stopped.bits,
                    scale, low, high, floor, work=BLOCK)
    return out, stopped if stopped.blocks.any() else None


def rounded_weight(weight: Tensor, high: int) -> Tensor:
    """A contiguous weight on the grids of its output channels (dimension 0)."""
    rows = weight.detach().flatten(1)
    out = torch.empty_like(rows)
    _round_rows(rows.shape[0], rows.numpy(), out.numpy(), high, work=rows.shape[1])
    return out.view(weight.shape)
