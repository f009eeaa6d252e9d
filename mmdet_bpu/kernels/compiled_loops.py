"""Loops over elements, compiled by numba where it is installed, and shared out over threads.

A loop is a Python function ``loop(start, stop, *arguments)`` that works on the elements (or rows)
from ``start`` to ``stop`` and writes nothing that another share writes. Threads come from a pool of
our own: numba's parallel layers do not survive the fork of a data loader.
"""
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, List, Tuple

import numpy as np
import torch
from torch import Tensor

from mmdet_bpu.kernels.source_key import named_by_sources

try:
    import numba
except ImportError:  # an optional extra: whoever asks `usable` first takes torch's operations
    numba = None

SWITCH = 'MMDET_BPU_NO_NUMBA'
"""Environment variable that, if it is set when this is imported, turns compiled loops off."""
_switched_off = bool(os.environ.get(SWITCH))

# Elements of the smallest share that is worth handing over to another thread: it takes some 20 us.
SHARE = 1 << 16


OPTIONS = dict(nogil=True, error_model='numpy')


def machine_code(*signatures: Any) -> Callable[[Callable], Callable]:
    """Decorator of a function: compiled at once for these types, or read from numba's cache.

    The cache lies beside the sources, or in the user's cache folder, or nowhere if neither can be
    written.
    """

    def compile_function(function: Callable) -> Callable:
        named_by_sources(function)
        try:
            return numba.njit(list(signatures), cache=True, **OPTIONS)(function)
        except RuntimeError as error:
            if 'cannot cache' not in str(error):
                raise
            return numba.njit(list(signatures), **OPTIONS)(function)

    return compile_function


class CompiledLoop:
    """A loop that is compiled when it is first called, or read from numba's cache.

    Args:
        loop (Callable): ``loop(start, stop, *arguments)``.
        signatures (list[str]): Types of ``(start, stop, *arguments)`` in numba's words.
    """

    def __init__(self, loop: Callable, signatures: List[str]) -> None:
        self._loop, self._signatures = loop, signatures
        functools.update_wrapper(self, loop)

    @functools.cached_property
    def compiled(self) -> Callable:
        """The machine code."""
        return machine_code(*self._signatures)(self._loop)

    def __call__(self, count: int, *arguments: Any, work: int = 1) -> None:
        """Run over ``count`` elements on as many threads as torch has.

        Args:
            count (int): Elements, or rows.
            arguments: What the loop takes after its bounds.
            work (int): Elements a row. Defaults to 1.
        """
        compiled = self.compiled
        spread(lambda start, stop: compiled(start, stop, *arguments), count, work)


def spread(loop: Callable[[int, int], None], count: int, work: int = 1) -> None:
    """Call ``loop(start, stop)`` so that every row is in one call, on as many threads as torch has.

    Args:
        loop (Callable): Works on rows start to stop - 1 without Python's lock.
        count (int): Rows.
        work (int): Elements a row. Defaults to 1.
    """
    first, *others = shares(count, work)
    pending = [_workers(len(others)).submit(loop, *share) for share in others]
    try:
        loop(*first)
    finally:
        for each in pending:  # the memory that they write is theirs until they have ended
            each.result()


def compiled(*signatures: str) -> Callable[[Callable], CompiledLoop]:
    """Decorator of a loop: see :class:`CompiledLoop`."""
    return lambda loop: CompiledLoop(loop, list(signatures))


def inner(function: Callable) -> Callable:
    """Decorator of a function that loops call; compiled with them."""
    return function if numba is None else numba.njit(**OPTIONS)(function)


def usable() -> bool:
    """Whether loops can be compiled here."""
    return numba is not None and not _switched_off


def shares(count: int, work: int = 1) -> List[Tuple[int, int]]:
    """(start, stop) of even shares of ``count`` rows of ``work`` elements, one for each thread."""
    number = min(torch.get_num_threads(), count, count * work // SHARE)
    if number < 2:
        return [(0, count)]
    bounds = [count * index // number for index in range(number + 1)]
    return list(zip(bounds, bounds[1:]))


def is_dense(x: Tensor) -> bool:
    """Whether the elements of ``x`` lie side by side in memory, in any order."""
    if x.is_contiguous() or x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return True
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape)
                               if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def fits(x: Tensor) -> bool:
    """Whether ``x`` is what loops over float32 elements can read."""
    return x.dtype == torch.float32 and x.device.type == 'cpu' and is_dense(x)


def elements(x: Tensor) -> np.ndarray:
    """Elements of a dense CPU tensor in the order that they have in memory, sharing it."""
    if x.is_contiguous():
        return x.detach().numpy().reshape(-1)
    return x.detach().as_strided((x.numel(), ), (1, )).numpy()


@functools.lru_cache(maxsize=None)
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix='bpu-loop')


if hasattr(os, 'register_at_fork'):  # a forked child has no threads but its own
    os.register_at_fork(after_in_child=_workers.cache_clear)
