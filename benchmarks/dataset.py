"""COCO in LMDB beside JPEG files: loading, start, memory, packing and size, in one run.

    python benchmarks/dataset.py [--data DIR] [--rounds 24] [--many [118000]] [--quick]

Prints one JSON object. The contenders take turns with a warm page cache; rates are medians of the
rounds, ratios medians of the rounds' ratios. Every pipeline ends in a step that drops the pixels,
so that sending them to the main process hides no difference; every process decodes with one thread.

"files" is mmdet's CocoDataset with LoadImageFromFile, "lmdb" is CocoLMDBDataset, both with cv2;
"decoding" is cv2 alone on encoded images in memory, "decoding_again" the same once more: how far
their ratio is from 1 is what noise does to ratios in this run. "requirements" holds what each
figure has to reach and whether it does.
"""
import argparse
import json
import operator
import os
import sys
import tempfile
from pathlib import Path

import cv2
import lmdb
import torch
from dataset_generated import (FIRST_ID, SPLIT, CocoFiles, first_images, in_small_files,
                               many_small, photo_like, repeated)
from dataset_loading import DECODING, FILES, LMDB, contenders, seconds_of, throughput
from dataset_packing import database_size, packing_rates
from dataset_process import cost_of_building, in_fresh_process, seconds_to_open
from dataset_worker import first_sample_ms, worker_memory
from machine_facts import machine
from mmdet.datasets import CocoDataset

from mmdet_bpu.datasets import CocoLMDBDataset, pack_coco
from mmdet_bpu.errors import BpuError, exit_on_error

COCO128 = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'coco128'
IMAGES = 128
ROUNDS = 24
QUICK_IMAGES = 24
WORKERS = (0, 1, 2)
MEMORY_TIMES = (1, 100)
PACKING_TIMES = 8
PACKING_ROUNDS = 7
TRAIN2017_IMAGES = 118_000  # rounded down from 118,287
RELATIONS = {'>=': operator.ge, '>': operator.gt, '<=': operator.le, '<': operator.lt}


def requirement(value: float, relation: str, bound: float) -> dict:
    """A figure, what it has to be, and whether it is."""
    value = round(value, 4)
    return dict(value=value, bound=f'{relation} {bound}', met=RELATIONS[relation](value, bound))


def positive(text: str) -> int:
    """Argument type: an integer from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'expected an integer from 1, found {value}')
    return value


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', metavar='DIR', type=Path,
                        help=f'folder with {SPLIT}/ and annotations/instances_{SPLIT}.json '
                        f'(default: {COCO128.name} where it lies beside the repository, otherwise '
                        'generated images)')
    parser.add_argument('--images', type=positive, default=IMAGES,
                        help=f'use the first N images (default: {IMAGES})')
    parser.add_argument('--rounds', type=positive, default=ROUNDS,
                        help=f'timed rounds of loading (default: {ROUNDS})')
    parser.add_argument('--many', metavar='N', type=positive, nargs='?', const=TRAIN2017_IMAGES,
                        help='also pack and build N small generated images, in some minutes '
                        f'(default: not; {TRAIN2017_IMAGES} if no number is given)')
    parser.add_argument('--tmp', metavar='DIR', type=Path,
                        help='folder of the temporary files, about 1 GB; they are removed '
                        "(default: the system's)")
    parser.add_argument('--quick', action='store_true',
                        help='few rounds on few small generated images, only to see that it runs')
    args = parser.parse_args()
    if args.quick and args.data:
        parser.error('--quick generates its images: it takes no --data')
    for option in ('data', 'tmp'):
        folder = getattr(args, option)
        if folder is not None and not folder.is_dir():
            parser.error(f'--{option}: {folder} is not a folder')
    return args


def source_files(args: argparse.Namespace, folder: Path) -> tuple[CocoFiles, str]:
    """The images to measure on, and what they are."""
    data = args.data or (COCO128 if COCO128.is_dir() else None)
    if args.quick:
        return photo_like(folder, QUICK_IMAGES, 160, 120), 'generated'
    if data is None:
        return photo_like(folder, args.images), 'generated'
    source = CocoFiles.under(data)
    for path in source:
        if not path.exists():
            raise BpuError(f'--data: expected {path}, which is not there')
    return first_images(source, args.images, folder), data.name


def many_images(count: int, folder: Path) -> tuple[dict, dict]:
    """Pack, open and build ``count`` small images; figures and requirements."""
    coco = in_fresh_process(many_small, folder, count)
    database = str(folder / 'packed')
    seconds_to_pack = seconds_of(lambda: in_fresh_process(pack_coco, *coco, database))
    open_seconds = in_fresh_process(seconds_to_open, database, FIRST_ID)
    files, _ = in_fresh_process(cost_of_building, CocoDataset, dict(
        ann_file=str(coco.ann_file), data_prefix=dict(img=str(coco.img_dir))))
    ours, _ = in_fresh_process(cost_of_building, CocoLMDBDataset, dict(lmdb=database))
    figures = dict(images=count, seconds_to_pack=round(seconds_to_pack, 1),
                   seconds_to_open=round(open_seconds, 4), build={FILES: files, LMDB: ours})
    return figures, {
        'many: seconds to open': requirement(open_seconds, '<', 1),
        'many: build seconds, lmdb / files': requirement(
            ours['seconds'] / files['seconds'], '<=', 0.5),
        'many: build memory, lmdb / files': requirement(
            ours['added_mb'] / files['added_mb'], '<=', 0.5)
    }


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """The whole report."""
    coco, data = source_files(args, folder / 'source')
    database = folder / 'packed'
    pack_coco(*coco, database)
    size = database_size(database)
    rounds = 3 if args.quick else args.rounds
    requirements, loading = {}, {}
    datasets = contenders(coco, str(database))
    for workers in WORKERS:
        loading[f'{workers} workers'] = found = throughput(datasets, workers, rounds)
        for other, relation, bound in ((DECODING, '>=', 0.97), (FILES, '>', 1)):
            requirements[f'{workers} workers: lmdb / {other}'] = requirement(
                found['ratios'][f'{LMDB} / {other}']['median'], relation, bound)
    start = first_sample_ms(coco, str(database), 1 if args.quick else 7)

    small = in_small_files(coco, folder / 'small')
    sets = {}
    for times in MEMORY_TIMES:
        larger = repeated(small, times, folder / f'repeated{times}', copies=False)
        sets[times] = (larger, str(folder / f'packed{times}'))
        pack_coco(*larger, sets[times][1])
    memory = worker_memory(sets, ['fork'] if args.quick else ['fork', 'spawn'], size_of(coco))

    copies = repeated(coco, PACKING_TIMES, folder / 'copies', copies=True)
    packing = packing_rates(copies, folder, 1 if args.quick else PACKING_ROUNDS)
    requirements['packing / copying with checksums'] = requirement(
        packing['ratio']['median'], '>=', 0.8)
    requirements['database bytes / records in pages'] = requirement(size['ratio'], '<=', 1.005)
    many = None
    if args.many is not None:
        many, bounds = many_images(args.many, folder / 'many')
        requirements.update(bounds)
    return dict(
        machine=dict(machine(), opencv=cv2.__version__, lmdb=lmdb.__version__),
        data=data, images=size_of(coco), rounds=rounds, loading=loading, first_sample_ms=start,
        worker_memory=memory, packing=packing, size=size, many=many, requirements=requirements)


def size_of(coco: CocoFiles) -> int:
    """Number of images."""
    return len(coco.content()['images'])


@exit_on_error()
def main() -> None:
    args = parse_args()
    # pycocotools reports its progress on stdout, in every process: that goes to stderr.
    report = os.fdopen(os.dup(sys.stdout.fileno()), 'w')
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.tmp) as folder:
        result = measure(args, Path(folder))
    print(json.dumps(result, indent=1), file=report)


if __name__ == '__main__':
    main()
