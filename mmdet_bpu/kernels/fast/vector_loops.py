"""The loops of the vector machine over registers of int32, one per operation.

A register in a block of R rows of n elements holds a value per element (``FULL``: R x n), one per
row (``ROW``: R), or one per column (``COLUMN``: n). A loop's result never lies in a register that
it reads: the compiler's check that memory does not overlap would choose a scalar loop.
"""
import functools

import numpy as np
from numba import njit

from mmdet_bpu.kernels.fast import int32
from mmdet_bpu.kernels.fast import requantize as rq
from mmdet_bpu.kernels.fast.memory import int16_at, int32_at

FULL, ROW, COLUMN = range(3)
"""Kinds of a register."""

# Called by compiled code alone: without the wrappers for Python they compile in two thirds of the
# time.
compiled = functools.partial(njit, no_cpython_wrapper=True, no_cfunc_wrapper=True,
                             error_model='numpy')


def _unary(element):
    """A loop over an element function ``(x, p0, p1, p2, p3, p4) -> value`` of int32."""

    @compiled()
    def loop(out, source, size, p0, p1, p2, p3, p4):
        y, x = int32_at(out, size), int32_at(source, size)
        for i in range(size):
            y[i] = element(x[i], p0, p1, p2, p3, p4)

    return loop


def _binary(element):
    """A loop over an element function of two values: FULL or COLUMN, and FULL, ROW or COLUMN."""

    @compiled()
    def loop(out, lhs, lhs_kind, rhs, rhs_kind, rows, size, p0, p1, p2, p3, p4):
        if lhs_kind == FULL and rhs_kind == FULL:
            rows, size = 1, rows * size
        for row in range(rows):
            y = int32_at(out + 4 * row * size, size)
            a = int32_at(lhs if lhs_kind == COLUMN else lhs + 4 * row * size, size)
            b = int32_at(rhs if rhs_kind == COLUMN else rhs + 4 * row * size, size)
            if rhs_kind == ROW:
                right = int32_at(rhs, rows)[row]
                for i in range(size):
                    y[i] = element(a[i], right, p0, p1, p2, p3, p4)
            else:
                for i in range(size):
                    y[i] = element(a[i], b[i], p0, p1, p2, p3, p4)

    return loop


@compiled()
def _scale_int32_ties(x, multiplier, shift, half, low, high):
    return rq.clamp(rq.scale_int32_ties(x, multiplier, shift, half), low, high)


@compiled()
def _scale_int32(x, multiplier, shift, half, low, high):
    return rq.clamp(rq.scale_int32(x, multiplier, shift, half), low, high)


@compiled()
def _scale_halves_ties(x, multiplier, shift, half, low, high):
    return rq.clamp(rq.scale_halves_ties(x, multiplier, shift, half), low, high)


@compiled()
def _scale_halves(x, multiplier, shift, half, low, high):
    return rq.clamp(rq.scale_halves(x, multiplier, shift, half), low, high)


@compiled()
def _mul(a, b, p0, p1, p2, p3, p4):
    return int32.mul(a, b)


@compiled()
def _mul_halves_ties(a, b, multiplier, shift, half, low, high):
    return _scale_halves_ties(int32.mul(a, b), multiplier, shift, half, low, high)


@compiled()
def _rounded(total, bits, half, odd, low, high):
    """``rhe(total / 2**bits)`` clamped; half and odd are 0 where there are no bits."""
    kept = int32.bits_and(int32.shift_right(total, bits), odd)
    return rq.clamp(int32.shift_right(int32.add(int32.add(total, kept), half), bits), low, high)


@compiled()
def _add(a, b, bits, half, odd, low, high):
    return _rounded(int32.add(a, b), bits, half, odd, low, high)


@compiled()
def _sub(a, b, bits, half, odd, low, high):
    return _rounded(int32.sub(a, b), bits, half, odd, low, high)


@compiled()
def _max(a, b, p0, p1, p2, p3, p4):
    return int32.largest(a, b)


@compiled()
def _min(a, b, p0, p1, p2, p3, p4):
    return int32.least(a, b)


@compiled()
def _relu(x, p0, p1, p2, p3, p4):
    return int32.largest(x, np.int32(0))


@compiled()
def _exceeds(x, limit, p1, p2, p3, p4):
    return np.int32(x > limit)


scale_int32_ties, scale_int32 = _unary(_scale_int32_ties), _unary(_scale_int32)
scale_halves_ties, scale_halves = _unary(_scale_halves_ties), _unary(_scale_halves)
relu, exceeds = _unary(_relu), _unary(_exceeds)
add, sub, mul = _binary(_add), _binary(_sub), _binary(_mul)
mul_halves_ties = _binary(_mul_halves_ties)
maximum, minimum = _binary(_max), _binary(_min)


@compiled()
def scale_any(out, source, size, multiplier, shift, half, low, high, mode):
    """Requantize by one pair in any mode, element after element."""
    y, x = int32_at(out, size), int32_at(source, size)
    for i in range(size):
        y[i] = rq.scale(x[i], mode, multiplier, shift, half, low, high)


@compiled()
def scale_columns(out, source, multipliers, shifts, halves, rows, size, mode, low, high):
    """Requantize with a pair per column."""
    m, s, h = int32_at(multipliers, size), int32_at(shifts, size), int32_at(halves, size)
    for row in range(rows):
        y, x = int32_at(out + 4 * row * size, size), int32_at(source + 4 * row * size, size)
        for i in range(size):
            y[i] = rq.scale(x[i], mode, m[i], s[i], h[i], low, high)


@compiled()
def spread_rows(out, source, rows, size):
    """The value of each row for each of its elements."""
    x = int32_at(source, rows)
    for row in range(rows):
        int32_at(out + 4 * row * size, size)[:] = x[row]


@compiled()
def look_up(out, source, size, table, mask):
    """The int16 entry at the unsigned reading of each element's bits."""
    y, x, entries = int32_at(out, size), int32_at(source, size), int16_at(table, mask + 1)
    for i in range(size):
        y[i] = entries[np.uint32(x[i] & mask)]


@compiled()
def select(out, mask, mask_kind, source, source_kind, other, other_kind, rows, size):
    """``other`` where the mask is set, the source elsewhere."""
    for row in range(rows):
        y = int32_at(out + 4 * row * size, size)
        for i in range(size):
            if _element(mask, mask_kind, row, size, i):
                y[i] = _element(other, other_kind, row, size, i)
            else:
                y[i] = _element(source, source_kind, row, size, i)


@compiled()
def _element(register, kind, row, size, i):
    index = row if kind == ROW else i if kind == COLUMN else row * size + i
    return int32_at(register, index + 1)[index]


def _row_reduction(join):
    """A loop that joins the elements of each row; join takes two int32."""

    @compiled()
    def loop(out, source, rows, size):
        y = int32_at(out, rows)
        for row in range(rows):
            x = int32_at(source + 4 * row * size, size)
            joined = x[0]
            for i in range(1, size):
                joined = join(joined, x[i])
            y[row] = joined

    return loop


def _column_reduction(join):
    """A loop that joins the rows with what ``out`` holds of the segment, nothing at its begin."""

    @compiled()
    def loop(out, source, rows, size, begin):
        y = int32_at(out, size)
        for row in range(rows):
            x = int32_at(source + 4 * row * size, size)
            if begin and row == 0:
                for i in range(size):
                    y[i] = x[i]
            else:
                for i in range(size):
                    y[i] = join(y[i], x[i])

    return loop


# Sums fit int32: the plan has shown it of the sum of magnitudes.
sum_rows, sum_columns = _row_reduction(int32.add), _column_reduction(int32.add)
max_rows, max_columns = _row_reduction(int32.largest), _column_reduction(int32.largest)
min_rows, min_columns = _row_reduction(int32.least), _column_reduction(int32.least)
