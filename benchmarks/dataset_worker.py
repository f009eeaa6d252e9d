"""Time to the first sample and memory of one DataLoader worker, each in a fresh process."""
import multiprocessing
import statistics

import numpy as np
from dataset_generated import CocoFiles
from dataset_loading import FILES, LMDB, from_files, from_lmdb, one_thread, seconds_of
from dataset_process import in_fresh_process, memory_of
from torch.utils.data import DataLoader

MEMORY_NOTE = (
    'One worker after reading the same number of samples. Pages of a mapped database count as '
    'resident, file-backed, and, while no other process maps them, as private; they are page '
    'cache, which the kernel takes back when memory is short, as it does with the cached pages of '
    'files that were read: private_without_database_mb is what a worker really holds. A forked '
    'worker shares what its parent built until it writes to it; a spawned one holds its own copy '
    'of everything, of the imports as well.')


def observe_worker(kind: str, source: CocoFiles | str, start_method: str, samples: int) -> dict:
    """Build a data set, start one worker, read samples.

    Args:
        kind (str): ``files`` or ``lmdb``.
        source (CocoFiles | str): The files, or the folder of the database.
        start_method (str): ``fork`` or ``spawn``.
        samples (int): How many samples the worker reads, chosen at random.

    Returns:
        dict: ``first_sample_ms``, from before the data set is built, and the worker's memory after
        the last sample.
    """
    one_thread()

    def first_sample() -> None:
        dataset = from_files(source) if kind == FILES else from_lmdb(source)
        order = np.random.default_rng(0).permutation(len(dataset))[:samples].tolist()
        loader = DataLoader(dataset, 1, sampler=order, num_workers=1, persistent_workers=True,
                            collate_fn=list, worker_init_fn=one_thread,
                            multiprocessing_context=start_method)
        state['batches'] = iter(loader)
        next(state['batches'])

    state = {}
    first_sample_ms = seconds_of(first_sample) * 1e3
    for _ in state['batches']:
        pass
    worker, = multiprocessing.active_children()
    return dict(first_sample_ms=first_sample_ms, **memory_of(worker.pid))


def first_sample_ms(coco: CocoFiles, database: str, rounds: int) -> dict[str, float]:
    """Median ms from before the data set is built to the first sample of a forked worker."""
    times = {FILES: [], LMDB: []}
    for _ in range(rounds):
        for kind, source in ((FILES, coco), (LMDB, database)):
            observed = in_fresh_process(observe_worker, kind, source, 'fork', 1)
            times[kind].append(observed['first_sample_ms'])
    return {kind: round(statistics.median(values), 1) for kind, values in times.items()}


def worker_memory(sets: dict[int, tuple[CocoFiles, str]], start_methods: list[str],
                  samples: int) -> dict:
    """Memory of a worker by start method, kind and size of the data set.

    Args:
        sets (dict[int, tuple[CocoFiles, str]]): Files and database by how often they repeat the
            images; two or more.
        start_methods (list[str]): Of the worker.
        samples (int): How many samples a worker reads, the same number from every set.

    Returns:
        dict: By start method and kind, a row per size, and ``growth_mb``: what the private memory
        without the database's pages gains from the smallest to the largest set.
    """
    result = dict(note=MEMORY_NOTE, samples_read=samples)
    for start_method in start_methods:
        result[start_method] = {}
        for position, kind in enumerate((FILES, LMDB)):
            rows = {f'{times} x': {name: round(value, 1) for name, value in in_fresh_process(
                observe_worker, kind, sources[position], start_method, samples).items()}
                for times, sources in sets.items()}
            private = [row['private_without_database_mb'] for row in rows.values()]
            result[start_method][kind] = dict(rows, growth_mb=round(private[-1] - private[0], 1))
    return result
