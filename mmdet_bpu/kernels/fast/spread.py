"""Compiled loops spread over threads: they release Python's lock, so plain threads serve.

numba's own ``prange`` is not used: under its OpenMP layer a forked data loader worker dies.
"""
from typing import Callable

import torch

from mmdet_bpu.kernels.reference.blocks import Blocks, for_each_block

# Elementary operations from which handing a part to another thread (some 50 us) is worth it.
SPREAD_WORK = 1 << 19
CPU = torch.device('cpu')


def spread(loop: Callable[[int, int], None], rows: int, row_work: int, parts: int = 4) -> None:
    """Call ``loop(first, end)`` so that every row is in one call, on all threads of torch.

    Args:
        loop (Callable): Computes rows first to end - 1, without Python's lock.
        rows (int): Number of rows.
        row_work (int): Elementary operations of a row.
        parts (int): Calls per thread, so that a thread that was held up leaves work to others.
    """
    threads = torch.get_num_threads()
    if threads == 1 or rows * row_work < SPREAD_WORK:
        loop(0, rows)
        return
    step = -(-rows // (threads * parts))
    ranges = [(first, min(first + step, rows)) for first in range(0, rows, step)]
    for_each_block(lambda part: loop(*part), Blocks(ranges, True), CPU)
