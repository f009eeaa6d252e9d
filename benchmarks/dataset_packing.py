"""Packing beside copying with checksums, and the size of what was packed."""
import hashlib
import os
import shutil
import statistics
from pathlib import Path

import lmdb
from dataset_generated import CocoFiles, first_images
from dataset_loading import seconds_of, spread

from mmdet_bpu.datasets import pack_coco

PAGE = 4096  # bytes, of LMDB on x86-64 and on Arm with 4 KiB pages


def copy_with_checksums(coco: CocoFiles, target: Path) -> list[str]:
    """Read, hash and write every image, one after the other; return when the disk has them."""
    checksums = []
    for image in coco.content()['images']:
        content = (coco.img_dir / image['file_name']).read_bytes()
        checksums.append(hashlib.sha256(content).hexdigest())
        copy = target / image['file_name']
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    os.sync()
    return checksums


def packing_rates(coco: CocoFiles, folder: Path, rounds: int) -> dict:
    """Rate of ``pack_coco`` and of copying the same files, in turns, from a warm page cache.

    Args:
        coco (CocoFiles): Images enough that the fixed cost of a run does not decide.
        folder (Path): Where to write; emptied after each run.
        rounds (int): Timed rounds after one to warm up; every second one in reverse order.

    Returns:
        dict: Rates (median of rounds), the ratio of packing to copying, and the fixed cost of
        packing, measured with a single image.
    """
    single = first_images(coco, 1, folder / 'single')
    runs = {
        'pack_coco': lambda target: pack_coco(*coco, target),
        'copy_with_sha256': lambda target: copy_with_checksums(coco, target),
        'pack_coco_single_image': lambda target: pack_coco(*single, target)
    }
    seconds = {name: [] for name in runs}
    for n in range(rounds + 1):
        for name in runs if n % 2 == 0 else reversed(runs):
            target = folder / name
            os.sync()  # what others have left to write is not part of a run
            seconds[name].append(seconds_of(lambda: runs[name](target)))
            shutil.rmtree(target)
    seconds = {name: values[1:] for name, values in seconds.items()}
    images = coco.content()['images']
    megabytes = sum((coco.img_dir / image['file_name']).stat().st_size for image in images) / 1e6
    result = dict(images=len(images), image_mb=round(megabytes, 1))
    for name in ('pack_coco', 'copy_with_sha256'):
        median = statistics.median(seconds[name])
        result[name] = dict(images_per_second=round(len(images) / median),
                            mb_per_second=round(megabytes / median, 1))
    ratios = [copied / packed for copied, packed in zip(seconds['copy_with_sha256'],
                                                        seconds['pack_coco'])]
    fixed = statistics.median(seconds['pack_coco_single_image'])
    return dict(result, ratio=spread(ratios), pack_coco_fixed_cost_ms=round(fixed * 1e3, 1))


def database_size(database: Path) -> dict:
    """Bytes on disk and of the records, read with lmdb alone.

    Returns:
        dict: ``folder_bytes`` of all files, ``records_bytes``, the sum of the stored values each
        rounded up to pages, and the ratio of the two.
    """
    rounded = records = 0
    for data_file in sorted(database.rglob('*.mdb')):
        if data_file.name == 'lock.mdb':
            continue
        with lmdb.open(str(data_file), subdir=False, readonly=True, lock=False) as environment, \
                environment.begin(buffers=True) as transaction:
            for _, value in transaction.cursor():
                rounded += -(-len(value) // PAGE) * PAGE
                records += 1
    folder_bytes = sum(path.stat().st_size for path in database.rglob('*') if path.is_file())
    return dict(records=records, folder_bytes=folder_bytes, records_bytes=rounded,
                ratio=round(folder_bytes / rounded, 4))
