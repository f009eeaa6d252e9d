"""The vector machine: runs a chain of operations over cache-sized blocks of rows, compiled once.

A program is an integer matrix with a row per operation. The first ones run once (constants, values
that all rows share), others once per block; the last ones once per segment: a run of rows that is
reduced, column by column, to what these operations finish and store. Registers are int32 and lie
in one scratch buffer that stays in the cache, so that a chain reads its inputs and writes its
outputs once. No program is compiled: the loops are those of
:mod:`mmdet_bpu.kernels.fast.vector_loops`.

Columns of an operation: opcode, space, out, then three pairs of a register and its kind, then
parameters. Registers are offsets in the scratch buffer. The space says over what it runs: the
elements of the block (``FULL``), one value per row (``ROW``) or per column (``COLUMN``).
"""
import numpy as np

from mmdet_bpu.kernels.compiled_loops import machine_code
from mmdet_bpu.kernels.fast import vector_loops as loops
from mmdet_bpu.kernels.fast.memory import int8_at, int16_at, int32_at
from mmdet_bpu.kernels.fast.vector_loops import COLUMN, ROW, compiled

(LOAD, STORE, SCALE_INT32_TIES, SCALE_INT32, SCALE_HALVES_TIES, SCALE_HALVES, SCALE_ANY,
 SCALE_COLUMNS, ADD, SUB, MUL, MUL_HALVES_TIES, MAX, MIN, RELU, EXCEEDS, SELECT, TABLE,
 SPREAD_ROWS, SUM_ROWS, MAX_ROWS, MIN_ROWS, SUM_COLUMNS, MAX_COLUMNS, MIN_COLUMNS) = range(25)
# Parameters start here; a load has the most: tensor, bytes of an element, dimensions, and the size
# and stride of up to MAX_DIMS outer dimensions.
PARAMETERS = 9
MAX_DIMS = 6
WIDTH = PARAMETERS + 3 + 2 * MAX_DIMS


@compiled()
def _copy_in(out, address, nbytes, size):
    y = int32_at(out, size)
    if nbytes == 1:
        x1 = int8_at(address, size)
        for i in range(size):
            y[i] = x1[i]
    elif nbytes == 2:
        x2 = int16_at(address, size)
        for i in range(size):
            y[i] = x2[i]
    else:
        x4 = int32_at(address, size)
        for i in range(size):
            y[i] = x4[i]


@compiled()
def _copy_out(address, source, nbytes, size):
    x = int32_at(source, size)
    if nbytes == 1:
        y1 = int8_at(address, size)
        for i in range(size):
            y1[i] = np.int8(x[i])
    elif nbytes == 2:
        y2 = int16_at(address, size)
        for i in range(size):
            y2[i] = np.int16(x[i])
    else:
        y4 = int32_at(address, size)
        for i in range(size):
            y4[i] = x[i]


@compiled()
def _offset(op, row):
    """Where an outer index lies in a tensor that is broadcast, in elements."""
    offset = 0
    for dim in range(op[PARAMETERS + 2] - 1, -1, -1):
        size, stride = op[PARAMETERS + 3 + 2 * dim], op[PARAMETERS + 4 + 2 * dim]
        offset += row % size * stride
        row //= size
    return offset


@compiled()
def _load(op, out, addresses, first, rows, size):
    address, nbytes = addresses[op[PARAMETERS]], op[PARAMETERS + 1]
    width = 1 if op[1] == ROW else size
    if op[1] == COLUMN:
        _copy_in(out, address, nbytes, width)
    elif op[PARAMETERS + 2] == 1 and op[PARAMETERS + 4] == width:  # one after the other
        _copy_in(out, address + nbytes * first * width, nbytes, rows * width)
    else:
        for row in range(rows):
            _copy_in(out + 4 * row * width, address + nbytes * _offset(op, first + row), nbytes,
                     width)


@compiled()
def _run(op, scratch, addresses, first, rows, size, begin):
    """One operation on the block of ``rows`` rows from ``first`` on; begin: of a segment."""
    code, space = op[0], op[1]
    out = scratch + 4 * op[2]
    a, b, c = scratch + 4 * op[3], scratch + 4 * op[5], scratch + 4 * op[7]
    a_kind, b_kind = op[4], op[6]
    p0, p1 = np.int32(op[PARAMETERS]), np.int32(op[PARAMETERS + 1])
    p2, p3 = np.int32(op[PARAMETERS + 2]), np.int32(op[PARAMETERS + 3])
    p4 = np.int32(op[PARAMETERS + 4])
    block, width = rows, size
    if space == ROW:
        rows, size = 1, rows
    elif space == COLUMN:
        rows = 1
    count = rows * size
    if code == LOAD:
        _load(op, out, addresses, first, block, width)
    elif code == STORE:
        nbytes = op[PARAMETERS + 1]
        step = nbytes * (1 if space == ROW else width)
        _copy_out(addresses[op[PARAMETERS]] + first * step, a, nbytes, count)
    elif code == SCALE_INT32_TIES:
        loops.scale_int32_ties(out, a, count, p0, p1, p2, p3, p4)
    elif code == SCALE_INT32:
        loops.scale_int32(out, a, count, p0, p1, p2, p3, p4)
    elif code == SCALE_HALVES_TIES:
        loops.scale_halves_ties(out, a, count, p0, p1, p2, p3, p4)
    elif code == SCALE_HALVES:
        loops.scale_halves(out, a, count, p0, p1, p2, p3, p4)
    elif code == SCALE_ANY:
        loops.scale_any(out, a, count, p0, p1, p2, p3, p4, op[PARAMETERS + 5])
    elif code == SCALE_COLUMNS:
        halves, mode = scratch + 4 * op[PARAMETERS], op[PARAMETERS + 1]
        loops.scale_columns(out, a, b, c, halves, rows, size, mode, p2, p3)
    elif code == ADD:
        loops.add(out, a, a_kind, b, b_kind, rows, size, p0, p1, p2, p3, p4)
    elif code == SUB:
        loops.sub(out, a, a_kind, b, b_kind, rows, size, p0, p1, p2, p3, p4)
    elif code == MUL:
        loops.mul(out, a, a_kind, b, b_kind, rows, size, p0, p1, p2, p3, p4)
    elif code == MUL_HALVES_TIES:
        loops.mul_halves_ties(out, a, a_kind, b, b_kind, rows, size, p0, p1, p2, p3, p4)
    elif code == MAX:
        loops.maximum(out, a, a_kind, b, b_kind, rows, size, p0, p1, p2, p3, p4)
    elif code == MIN:
        loops.minimum(out, a, a_kind, b, b_kind, rows, size, p0, p1, p2, p3, p4)
    elif code == RELU:
        loops.relu(out, a, count, p0, p1, p2, p3, p4)
    elif code == EXCEEDS:
        loops.exceeds(out, a, count, p0, p1, p2, p3, p4)
    elif code == SELECT:
        loops.select(out, a, a_kind, b, b_kind, c, op[8], rows, size)
    elif code == TABLE:
        loops.look_up(out, a, count, addresses[op[PARAMETERS]], p1)
    elif code == SPREAD_ROWS:
        loops.spread_rows(out, a, block, width)
    elif code == SUM_ROWS:
        loops.sum_rows(out, a, block, width)
    elif code == MAX_ROWS:
        loops.max_rows(out, a, block, width)
    elif code == MIN_ROWS:
        loops.min_rows(out, a, block, width)
    elif code == SUM_COLUMNS:
        loops.sum_columns(out, a, block, width, begin)
    elif code == MAX_COLUMNS:
        loops.max_columns(out, a, block, width, begin)
    elif code == MIN_COLUMNS:
        loops.min_columns(out, a, block, width, begin)


@machine_code('void(int64[:,::1], int64[::1], int64[::1], int32[::1], int64, int64)')
def run_blocks(program, cut, addresses, scratch, first, end):
    """Run a program on some rows.

    Args:
        program (np.ndarray): Operations.
        cut (np.ndarray): How many of them run once, and how many per block; elements of a row,
            rows of a block, rows of a segment; rows and elements of a row of what a segment
            leaves, which the remaining operations read.
        addresses (np.ndarray): Of the tensors, in the order of the operations' numbers.
        scratch (np.ndarray): Memory for the registers.
        first (int): First row, a segment's first one.
        end (int): Row after the last one.
    """
    registers = np.int64(scratch.ctypes.data)
    setup, body, size, block, segment, kept_rows, kept_size = cut
    for base in range(first, end, segment):
        stop = min(base + segment, end)
        for start in range(base, stop, block):
            rows = min(block, stop - start)
            ends = len(program) if start + rows == stop else setup + body
            for index in range(0 if start == first else setup, ends):
                if index < setup + body:
                    row, count, width = start, rows, size
                else:
                    row, count, width = base // segment * kept_rows, kept_rows, kept_size
                _run(program[index], registers, addresses, row, count, width, start == base)
