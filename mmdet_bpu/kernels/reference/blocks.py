"""Cut tensors in cache-sized blocks and spread them over threads.

A kernel makes many short passes over its data. Each block goes through all of them on one thread
while it lies in that core's cache. Threading inside every pass instead would wait for all threads
dozens of times per kernel: on 2 cores with other work to do that took 2 to 30 times as long.
"""
import functools
import itertools
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable

import torch

# Elements of a block: a few int32 buffers of this size fit a core's L2 cache.
BLOCK = 1 << 16
# Up to this many elements torch itself stays on one thread.
SMALL = 1 << 15
# From this many elements on, elementwise work is worth handing over to workers, which take turns
# in Python between their operations.
SPREAD = 1 << 18


@dataclass(frozen=True)
class Blocks:
    """How a kernel cuts its data.

    Attributes:
        parts (list): Index or slice of each block.
        spread (bool): Whether to give the blocks to several threads.
    """

    parts: list
    spread: bool


def row_blocks(rows: int, row_elements: int, block: int = BLOCK, spread: int = SPREAD) -> Blocks:
    """Slices that cover ``rows`` rows, each of about ``block`` elements.

    Args:
        rows (int): Rows to cover.
        row_elements (int): Elements of a row.
        block (int): Elements of a block where several threads work, each with an even share.
        spread (int): Elements from which several threads work.
    """
    elements, threads = rows * row_elements, torch.get_num_threads()
    spreads = threads > 1 and elements >= spread
    if threads > 1 and not spreads:
        block = SMALL
    count = max(1, math.ceil(elements / block))
    if spreads:
        count = math.ceil(count / threads) * threads
    step = max(1, math.ceil(rows / count))
    return Blocks([slice(start, start + step) for start in range(0, rows, step)], spreads)


def shape_blocks(shape: tuple[int, ...]) -> Blocks:
    """Index tuples that cut a shape in blocks of at most about :data:`BLOCK` elements."""
    if not shape or 0 in shape:
        return Blocks([()] if not shape else [], False)
    axis, inner = len(shape) - 1, 1
    while axis > 0 and inner * shape[axis] <= SMALL:
        inner *= shape[axis]
        axis -= 1
    outer = itertools.product(*map(range, shape[:axis]))
    rows = row_blocks(shape[axis], inner, spread=SPREAD * inner * shape[axis] // math.prod(shape))
    return Blocks([(*index, part) for index in outer for part in rows.parts], rows.spread)


def for_each_block(work: Callable[[Any], None], blocks: Blocks, device: torch.device) -> None:
    """Call ``work`` on every part; parts write to separate places, so order does not matter.

    Where the blocks are spread (on the CPU), each part runs on one of as many workers as torch
    has threads; a worker uses a single thread inside torch.
    """
    if not blocks.spread or len(blocks.parts) < 2 or device.type != 'cpu':
        for part in blocks.parts:
            work(part)
        return
    inference = torch.is_inference_mode_enabled()  # set per thread

    def run(part: Any) -> None:
        with torch.inference_mode(inference):
            work(part)

    for _ in _workers(torch.get_num_threads()).map(run, blocks.parts):
        pass


@functools.lru_cache(maxsize=None)
def _workers(threads: int) -> ThreadPoolExecutor:
    """Workers that use one thread inside torch each."""
    together = threading.Barrier(threads)

    def prepare(_: int) -> None:
        torch.get_num_threads()  # a thread's first call takes over the default: before setting it
        torch.set_num_threads(1)
        together.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix='bpu-block')
    list(pool.map(prepare, range(threads)))
    # The workers' setting became the default of threads to come: give them this thread's back.
    torch.set_num_threads(threads)
    return pool


if hasattr(os, 'register_at_fork'):  # a forked child has no threads but its own
    os.register_at_fork(after_in_child=_workers.cache_clear)
