"""Images per second of JPEG files, of the database and of decoding alone, one beside the other."""
import multiprocessing
import statistics
import time
from typing import Callable, Iterator

import cv2
import numpy as np
import psutil
from dataset_generated import CocoFiles
from mmdet.datasets import CocoDataset
from torch.utils.data import DataLoader, Dataset, Sampler

from mmdet_bpu.datasets import CocoLMDBDataset
from mmdet_bpu.errors import BpuError

# Small enough that two workers share even few images evenly, as large as detectors train with.
BATCH = 8
BATCHES_PER_TURN = 4  # of each worker
FILES, LMDB, LMDB_SIMPLEJPEG = 'files', 'lmdb', 'lmdb_simplejpeg'
DECODING, DECODING_AGAIN = 'decoding', 'decoding_again'

RATIOS = ((LMDB, DECODING), (LMDB, FILES), (LMDB_SIMPLEJPEG, DECODING), (LMDB_SIMPLEJPEG, FILES),
          (DECODING_AGAIN, DECODING))


def keep_shape(results: dict) -> tuple[int, ...]:
    """Last step of every pipeline: the pixels stay where they were decoded."""
    return results['img'].shape


class EncodedImages(Dataset):
    """The encoded images of a data set in memory; a sample is one of them, decoded."""

    def __init__(self, coco: CocoFiles) -> None:
        self.encoded = [(coco.img_dir / image['file_name']).read_bytes()
                        for image in coco.content()['images']]

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, idx: int) -> tuple[int, ...]:
        return cv2.imdecode(np.frombuffer(self.encoded[idx], np.uint8), cv2.IMREAD_COLOR).shape


def from_files(coco: CocoFiles) -> CocoDataset:
    """mmdet's own data set and loader."""
    return CocoDataset(ann_file=str(coco.ann_file), data_prefix=dict(img=str(coco.img_dir)),
                       pipeline=[dict(type='LoadImageFromFile'), keep_shape])


def from_lmdb(database: str, imdecode_backend: str = 'cv2') -> CocoLMDBDataset:
    """The packed data set with the loader that stands for mmdet's own."""
    return CocoLMDBDataset(lmdb=database, pipeline=[
        dict(type='LoadImageFromFile', imdecode_backend=imdecode_backend), keep_shape])


def contenders(coco: CocoFiles, database: str) -> dict[str, Dataset]:
    """The data sets that are compared, by name; ``lmdb_simplejpeg`` only where it works.

    ``decoding_again`` is the same as ``decoding``: how far their ratio is from 1 is the noise.
    """
    encoded = EncodedImages(coco)
    found = {FILES: from_files(coco), LMDB: from_lmdb(database), DECODING: encoded,
             DECODING_AGAIN: encoded}
    try:
        with_simplejpeg = from_lmdb(database, 'simplejpeg')
        with_simplejpeg[0]
    except BpuError:  # it is not installed
        return found
    return {**found, LMDB_SIMPLEJPEG: with_simplejpeg}


def one_thread(_: int = 0) -> None:
    """Decode with one thread, in this process or (as ``worker_init_fn``) in a worker."""
    cv2.setNumThreads(1)


class Turn(Sampler):
    """The images that all loaders read next; one object for all."""

    def __init__(self) -> None:
        self.images: list[int] = []

    def __iter__(self) -> Iterator[int]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)


def throughput(datasets: dict[str, Dataset], workers: int, rounds: int) -> dict:
    """Rates of all data sets in turns, with a warm page cache.

    A round reads every image of every data set once. Within it the data sets take turns of some
    images each, so that whatever else slows the machine for a while slows them all.

    Args:
        datasets (dict[str, Dataset]): Of equal length and order.
        workers (int): Persistent DataLoader workers; 0 decodes in this process.
        rounds (int): Timed rounds.

    Returns:
        dict: By name ``images_per_second`` (median of rounds) and ``cpu_ms_per_image`` of workers
        or process; ``ratios`` by pair, each the median and quartiles of the rounds' ratios, and
        the ratio of processor times, which other processes hardly change.

    Raises:
        RuntimeError: If the data sets do not give images of the same shapes.
    """
    one_thread()
    turn, count = Turn(), len(datasets[DECODING])
    loaders = {name: DataLoader(dataset, BATCH, sampler=turn, num_workers=workers,
                                persistent_workers=workers > 0, collate_fn=list,
                                worker_init_fn=one_thread)
               for name, dataset in datasets.items()}
    turn.images = list(range(count))
    processes, shapes = {}, {}
    for name, loader in loaders.items():  # also warms up
        others = set(multiprocessing.active_children())
        shapes[name] = list(loader)
        started = set(multiprocessing.active_children()) - others
        processes[name] = [psutil.Process(process.pid) for process in started]
    different = [name for name in shapes if shapes[name] != shapes[DECODING]]
    if different:
        raise RuntimeError(f'{different} give other image shapes than decoding the files')

    def cpu_seconds(name: str) -> float:
        if not workers:
            return time.process_time()
        return sum(sum(process.cpu_times()[:2]) for process in processes[name])

    rng, names = np.random.default_rng(0), list(loaders)
    rates, cpu = {name: [] for name in names}, dict.fromkeys(names, 0.)
    per_turn = BATCH * BATCHES_PER_TURN * max(workers, 1)
    for _ in range(rounds):
        order, seconds = rng.permutation(count).tolist(), dict.fromkeys(names, 0.)
        for start in range(0, count, per_turn):
            turn.images = order[start:start + per_turn]
            for name in rng.permutation(names).tolist():
                before = cpu_seconds(name)
                seconds[name] += seconds_of(lambda: list(loaders[name]))
                cpu[name] += cpu_seconds(name) - before
        for name in names:
            rates[name].append(count / seconds[name])
    return dict(
        images_per_second={LMDB_SIMPLEJPEG: None, **{
            name: round(statistics.median(values), 1) for name, values in rates.items()}},
        cpu_ms_per_image={name: round(value * 1e3 / (count * rounds), 3)
                          for name, value in cpu.items()},
        ratios={f'{ours} / {other}': dict(
            spread([a / b for a, b in zip(rates[ours], rates[other])]),
            of_cpu_time=round(cpu[other] / cpu[ours], 4) if cpu[ours] else None)
            for ours, other in RATIOS if ours in rates})


def seconds_of(run: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def spread(values: list[float]) -> dict:
    """Median and quartiles."""
    quartiles = np.quantile(values, [0.25, 0.75]).round(4).tolist()
    return dict(median=round(statistics.median(values), 4), quartiles=quartiles)
