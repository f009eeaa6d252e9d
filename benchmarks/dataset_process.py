"""What things cost in a fresh process: seconds, and memory as Linux counts it."""
import multiprocessing
import re
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Callable, Sequence

import psutil

import mmdet_bpu.openmmlab  # noqa: F401  (lets mmdet be imported beside mmcv-lite)
from mmdet.datasets import CocoDataset

from mmdet_bpu.datasets import open_store

DATABASE_SUFFIX = '.mdb'
# The second one is imported when the first transform is built from a config: whoever builds it
# first would pay for all.
IMPORTED_BEFORE = ['mmdet_bpu.datasets', 'mmdet.datasets.transforms']


def in_fresh_process(function: Callable, *args) -> Any:
    """Call a function of a module in a new process that has imported mmdet and done nothing else.

    The process is forked from one that was started for this, so that neither the caller's data nor
    the time of the imports is in what it measures.

    Returns:
        Any: What the function returns.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(IMPORTED_BEFORE)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def cost_of_building(dataset_type: type[CocoDataset], arguments: dict,
                     positions: Sequence[int] = ()) -> tuple[dict[str, float], list[dict]]:
    """Build a data set in this process, which should be a fresh one.

    Args:
        dataset_type (type): ``CocoDataset`` or a subclass.
        arguments (dict): Of the data set.
        positions (Sequence[int]): Samples to give back. Defaults to none.

    Returns:
        tuple[dict, list[dict]]: ``seconds``, ``rss_before_mb``, ``peak_rss_mb`` during the build,
        their difference ``added_mb``, and ``images``, the length of the data set; the samples.
    """
    # The kernel lets the peak start again from what is resident now: imports do not count.
    Path('/proc/self/clear_refs').write_text('5')
    before = status_mb('VmRSS')
    start = time.perf_counter()
    dataset = dataset_type(**arguments)
    seconds = time.perf_counter() - start
    peak = status_mb('VmHWM')
    cost = dict(seconds=round(seconds, 3), rss_before_mb=round(before, 1),
                peak_rss_mb=round(peak, 1), added_mb=round(peak - before, 1), images=len(dataset))
    return cost, [dataset[position] for position in positions]


def seconds_to_open(database: str, image_id: int) -> float:
    """From nothing to the number of images and the checked bytes of one of them."""
    start = time.perf_counter()
    store = open_store(database)
    with store.image(image_id) as content:
        usable = len(store) > 0 and len(content) > 0
    seconds = time.perf_counter() - start
    if not usable:
        raise RuntimeError(f'{database} has no bytes of image {image_id}')
    return seconds


def memory_of(pid: int) -> dict[str, float]:
    """Memory of a process in MB.

    Returns:
        dict: ``private_mb`` (uss: mapped by no other process), ``private_without_database_mb`` (the
        same less the pages of a mapped database, which are page cache), ``resident_anonymous_mb``
        and ``resident_file_mb``, the two parts of its resident set.
    """
    private = dict(database=0, other=0)
    for mapping in psutil.Process(pid).memory_maps(grouped=True):
        kind = 'database' if mapping.path.endswith(DATABASE_SUFFIX) else 'other'
        private[kind] += mapping.private_clean + mapping.private_dirty
    return dict(private_mb=sum(private.values()) / 1e6,
                private_without_database_mb=private['other'] / 1e6,
                resident_anonymous_mb=status_mb('RssAnon', pid),
                resident_file_mb=status_mb('RssFile', pid))


def status_mb(field: str, pid: int | str = 'self') -> float:
    """A size in ``/proc/<pid>/status`` in MB, e.g. ``VmRSS`` or ``RssAnon``."""
    status = Path(f'/proc/{pid}/status').read_text()
    return int(re.search(rf'^{field}:\s*(\d+) kB$', status, re.MULTILINE)[1]) * 1024 / 1e6
