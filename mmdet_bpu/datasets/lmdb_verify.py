"""Read a packed COCO data set back: every record, its checksums, and that the parts agree.

Damaged pages can make LMDB itself crash, so the reading is done in a process of its own.
"""
import faulthandler
import hashlib
import multiprocessing
import os
import signal
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Callable, Iterator

import lmdb

from mmdet_bpu.datasets.image_index import index_records
from mmdet_bpu.datasets.lmdb_environment import open_environment
from mmdet_bpu.datasets.lmdb_format import (COCO_KEY, DATA_FILE, INDEX_CATEGORIES_KEY,
                                            INDEX_FILES_KEY, INDEX_IDS_KEY, INDEX_IMAGES_KEY,
                                            INDEX_SHA256_KEY,
                                            META_KEY, describe_key, image_files, image_key,
                                            instances_key, json_key, shard_of)
from mmdet_bpu.datasets.lmdb_store import VERIFY_HINT, CocoStore
from mmdet_bpu.datasets.shielded_process import start_shielded
from mmdet_bpu.datasets.sample_record import encode_sample
from mmdet_bpu.errors import BpuError
from mmdet_bpu.steps import progress_bar

FAULTS_SHOWN = 10
REPORT_EVERY = 100  # images
# How a process ends by its own reading. Others, such as SIGKILL, come from outside.
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}


def verify_database(path: str | Path, progress: bool = False) -> dict:
    """Read every record of a database.

    Args:
        path (str | Path): Folder of the database.
        progress (bool): Show a progress bar on stderr. Defaults to False.

    Returns:
        dict: The ``meta`` record of a database without a fault.

    Raises:
        BpuError: If it cannot be opened, a record is missing, damaged or foreign, or reading it
            crashes LMDB; the message names the records.
    """
    context = multiprocessing.get_context('fork')
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_verify_in_child, args=(os.fspath(path), ours, theirs))
    start_shielded(process)
    theirs.close()
    place, answer = 'its header', None
    try:
        kind, content = ours.recv()
        opened = kind == 'total'
        with progress_bar('verifying', content if opened else 0, progress and opened) as advance:
            while kind in ('total', 'at'):
                if kind == 'at':
                    place, count = content
                    advance(count)
                kind, content = ours.recv()
        answer = kind, content
    except EOFError:
        pass
    except BaseException:  # such as Ctrl-C
        process.kill()
        raise
    finally:
        ours.close()
        process.join()
    if answer is None:
        code = process.exitcode
        if code >= 0:
            raise RuntimeError(f'verification of {path} failed; see the traceback above')
        if -code not in CRASHES:
            raise BpuError(f'verification of {path} was ended by {signal.Signals(-code).name}; '
                           'verify it again')
        raise BpuError(f'{path} is damaged: reading it ended in {signal.Signals(-code).name} near '
                       f'{place}, so pages of the file are not what LMDB wrote. Pack it again')
    kind, content = answer
    if kind == 'fault':
        raise BpuError(content)
    return content


def _verify_in_child(path: str, parents_end: Connection, connection: Connection) -> None:
    faulthandler.disable()  # a crash is said in words
    parents_end.close()
    with suppress(BrokenPipeError):  # nobody waits any more
        try:
            meta = _verify(path, lambda kind, content: connection.send((kind, content)))
        except BpuError as error:
            advice = f'; {VERIFY_HINT} {path}'  # which is what is being done
            connection.send(('fault', str(error).replace(advice, '. Pack it again')))
        except lmdb.Error as error:
            connection.send(('fault', f'{path} is damaged: LMDB reports {error}. Pack it again'))
        else:
            connection.send(('meta', meta))


def _verify(path: str, report: Callable) -> dict:
    store = CocoStore(path, strict=False)
    counts = store.meta['counts']
    order = store.read_index().ids.tolist()
    ids = sorted(order)
    report('total', len(ids))
    faults = []
    for name, keys in _keys_by_file(store, ids).items():
        report('at', (f'the keys of {name}', 0))
        faults += _foreign_records(os.path.join(path, name), keys)
    image_bytes, annotations = 0, 0
    hashes = store.read_sha256()
    for number, image_id in enumerate(ids):
        if number % REPORT_EVERY == 0:
            report('at', (f'image {image_id}', min(number, REPORT_EVERY)))
        with _noting(faults, path), store.read(image_key(image_id)) as content:
            image_bytes += len(content)
            if hashlib.sha256(content).digest() != hashes[image_id]:
                faults.append(f'image {image_id} is not the file that was packed (SHA-256)')
    report('at', ('the annotations', (len(ids) - 1) % REPORT_EVERY + 1 if ids else 0))
    images, categories = [], {}
    for image_id in order:
        with _noting(faults, path):
            image, its_annotations = store.annotations(image_id)
            annotations += len(its_annotations)
            images.append({name: image[name] for name in ('id', 'file_name', 'width', 'height')})
            categories[image_id] = [
                dict(category_id=category)
                for category in dict.fromkeys(a['category_id'] for a in its_annotations)]
            with store.read(instances_key(image_id)) as content:
                if content != encode_sample(image, its_annotations):
                    faults.append(
                        f'instance record of image {image_id} is not made of its annotations')
    if not faults:
        with _noting(faults, path):
            faults += _wrong_indices(store, index_records(
                images, categories, store.coco_fields()['categories'], hashes))
    if not faults and (annotations, image_bytes) != (counts['annotations'], counts['image_bytes']):
        faults.append(f"{counts['annotations']} annotations and {counts['image_bytes']} bytes of "
                      f'images expected, {annotations} and {image_bytes} found')
    if faults:
        more = f'; and {len(faults) - FAULTS_SHOWN} more' if len(faults) > FAULTS_SHOWN else ''
        raise BpuError(f'{path} has {len(faults)} fault(s): {"; ".join(faults[:FAULTS_SHOWN])}'
                       f'{more}. Pack it again')
    return store.meta


def _wrong_indices(store: CocoStore, expected: dict[bytes, bytes]) -> list[str]:
    """The index records that are not made of the others, and their hash in ``meta``."""
    faults = []
    for key, content in expected.items():
        with store.read(key) as found:
            if found != content:
                faults.append(f'{describe_key(key)} is not made of the annotations and images')
    if hashlib.sha256(expected[INDEX_SHA256_KEY]).hexdigest() != store.meta['images_sha256']:
        faults.append(f'{describe_key(INDEX_SHA256_KEY)} is not the one that meta names')
    return faults


@contextmanager
def _noting(faults: list[str], path: str) -> Iterator[None]:
    try:
        yield
    except BpuError as error:
        # Without the name of the database before it and the advice after it.
        faults.append(str(error).removeprefix(f'{path}: ').partition('; check it with')[0])


def _keys_by_file(store: CocoStore, ids: list[int]) -> dict[str, set[bytes]]:
    """The keys that each file of the database should hold."""
    names = image_files(store.meta['shards'])
    keys: dict[str, set[bytes]] = {name: {META_KEY} for name in {DATA_FILE, *names}}
    keys[DATA_FILE] |= {COCO_KEY, INDEX_CATEGORIES_KEY, INDEX_FILES_KEY, INDEX_IDS_KEY,
                        INDEX_IMAGES_KEY, INDEX_SHA256_KEY, *map(instances_key, ids),
                        *map(json_key, ids)}
    for key in map(image_key, ids):
        keys[names[shard_of(key, len(names))]].add(key)
    return keys


def _foreign_records(file: str, expected: set[bytes]) -> list[str]:
    """Walk all keys of a file; each should be expected, and greater than the one before it.

    A damaged page may send the walk in a circle: the order ends it.
    """
    faults, before, seen = [], b'', 0
    with open_environment(file).begin() as transaction:
        for key in transaction.cursor().iternext(keys=True, values=False):
            seen += 1
            if key <= before and seen > 1:
                faults.append(f'the keys of {os.path.basename(file)} are out of order at '
                              f'{describe_key(key)}')
                break
            before = key
            if key not in expected:
                faults.append(f'{describe_key(key)} does not belong in {os.path.basename(file)}')
        else:
            counted = transaction.stat()['entries']
            if counted != seen:
                faults.append(f'the header of {os.path.basename(file)} counts {counted} records, '
                              f'it has {seen}')
    return faults
