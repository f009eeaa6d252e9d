"""Packed data sets whose records lie, most of them behind checksums that are right."""
import json
import random
import shutil
import struct
import warnings
from pathlib import Path
from typing import Callable, NamedTuple

import lmdb as lmdb_library
from fuzzing.case import Case
from fuzzing.damaged_bytes import damaged
from fuzzing.hostile_json import dump, mutated
from fuzzing.tiny_coco import write_tiny_coco

from mmdet_bpu.datasets import (CocoLMDBBackend, CocoLMDBDataset, CocoLMDBMetric, CocoStore,
                                pack_coco)
from mmdet_bpu.datasets.lmdb_format import CHECKSUM_BYTES, encode_record
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.errors import BpuError

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True),
            dict(type='mmdet.PackDetInputs')]
NUMBERS = (0, 1, -1, 5, 1 << 31, (1 << 31) - 1, 1 << 40, (1 << 63) - 1, -(1 << 63))
VERIFIED = 0.1  # share of the cases that are verified too, which takes a process
Files = dict[str, dict[bytes, bytes]]  # by name of a file: payloads by key


class Database(NamedTuple):
    """What is written.

    Attributes:
        values (Files): Payloads with their checksums, right or not.
        honest (bool): Whether every checksum is that of its payload.
        verified (bool): Whether to verify it too.
    """
    values: Files
    honest: bool
    verified: bool


class Lmdb:
    name = 'lmdb'

    def prepare(self, folder: Path) -> None:
        """One database in one file, and one in shards."""
        source = write_tiny_coco(folder)
        self._path = folder / 'mutated'
        self._seeds: list[Files] = []
        for shards in (1, 2):
            path = folder / f'packed{shards}'
            pack_coco(*source, path, shards=shards, processes=1)
            self._seeds.append({file.name: _payloads(file) for file in path.glob('*.mdb')})
        self._original = [self._read_all(files) for files in map(_with_checksums, self._seeds)]

    def case(self, rng: random.Random) -> Case:
        files = {name: dict(records) for name, records in rng.choice(self._seeds).items()}
        if rng.random() < 0.15:
            values = _with_checksums(files)
            name, key = _place(values, rng)
            values[name][key], words = damaged(values[name][key], rng)
            return Case(Database(values, False, False), f'{name} {key}: {words}, checksum left')
        words = [_change(files, rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        if rng.random() < 0.5:
            words.append(_recount(files))
        database = Database(_with_checksums(files), True, rng.random() < VERIFIED)
        return Case(database, '; '.join(words))

    def run(self, case: Case) -> str:
        database: Database = case.data
        if not database.honest:
            return 'equal' if self._read_all(database.values) in self._original else 'different'
        found = self._read_all(database.values, database.verified)
        same = _text(found) == _text(_as_written(database.values))
        return 'equal' if same else 'different'

    def _read_all(self, values: Files, verify: bool = False) -> dict:
        """What the store says, after every other reader has been over it.

        Raises:
            BpuError: If one of them refused.
        """
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir()
        for name, records in values.items():
            _write(self._path / name, records)
        path, refusals = str(self._path), []
        readers = [_train, _evaluate, _use_as_storage, *([verify_database] if verify else [])]
        for read in readers:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    read(path)
            except BpuError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]
        store = CocoStore(path)
        ids = store.read_index().ids.tolist()
        images = {}
        for image_id in ids:
            with store.image(image_id) as content:
                images[image_id] = bytes(content)
        return dict(images=images, annotations={i: store.annotations(i) for i in ids},
                    samples={i: store.instances(i) for i in ids}, fields=store.coco_fields())


def _train(path: str) -> None:
    dataset = CocoLMDBDataset(lmdb=path, pipeline=PIPELINE, filter_cfg=dict(min_size=1),
                              max_refetch=0)
    for index in range(len(dataset)):
        assert dataset.prepare_data(index) is not None
    assert dataset.cat_img_map is not None


def _evaluate(path: str) -> None:
    metric = CocoLMDBMetric(path)
    metric.dataset_meta = dict(classes=('cat', 'dog'))


def _use_as_storage(path: str) -> None:
    backend = CocoLMDBBackend(path)
    names = list(backend.list_dir_or_file('images', recursive=True, list_dir=False))
    for name in names:
        backend.get(f'images/{name}')
    found, expected = json.loads(backend.get_text('instances.json')), CocoStore(path).to_coco()
    assert _text(found) == _text(expected)


def _text(content) -> str:
    """Content for comparison: as text a NaN is equal to itself."""
    return repr(sorted(content.items()))


def _as_written(values: Files) -> dict:
    """What the records say, by plain JSON."""
    records = {key: value[:-CHECKSUM_BYTES] for of_file in values.values()
               for key, value in of_file.items()}
    ids = [row[0] for row in struct.iter_unpack('<3q', records[b'index/images'])]
    entries = {i: json.loads(records[b'json/%019d' % i]) for i in ids}
    return dict(
        images={i: records[b'image/%019d' % i] for i in ids},
        annotations={i: (entry['image'], entry['annotations']) for i, entry in entries.items()},
        samples={i: json.loads(records[b'instances/%019d' % i]) for i in ids},
        fields=json.loads(records[b'coco']))


def _payloads(file: Path) -> dict[bytes, bytes]:
    with lmdb_library.open(str(file), subdir=False, readonly=True, lock=False) as environment:
        with environment.begin() as transaction:
            return {key: value[:-CHECKSUM_BYTES] for key, value in transaction.cursor()}


def _with_checksums(files: Files) -> Files:
    return {name: {key: encode_record(key, payload) for key, payload in records.items()}
            for name, records in files.items()}


def _write(file: Path, records: dict[bytes, bytes]) -> None:
    with lmdb_library.open(str(file), subdir=False, lock=False, sync=False,
                           map_size=1 << 24) as environment:
        with environment.begin(write=True) as transaction:
            for key, value in records.items():
                transaction.put(key, value)


def _place(files: Files, rng: random.Random) -> tuple[str, bytes]:
    """A record; each kind of record is as likely as another."""
    places = [(name, key) for name, records in files.items() for key in sorted(records)]
    kind = rng.choice(sorted({key.split(b'/')[0] for _, key in places}))
    return rng.choice([place for place in places if place[1].split(b'/')[0] == kind])


def _change(files: Files, rng: random.Random) -> str:
    name, key = _place(files, rng)
    change: Callable = rng.choice([_rewrite] * 8 + [_lose, _rename, _exchange, _add])
    return f'{name} {key}: {change(files[name], key, rng)}'


def _rewrite(records: dict[bytes, bytes], key: bytes, rng: random.Random) -> str:
    payload = records[key]
    if key.startswith(b'index/') and len(payload) >= 8 and rng.random() < 0.6:
        width = 8 if key in (b'index/ids', b'index/images', b'index/files') else 1
        numbers = bytearray(payload)
        at, value = rng.randrange(len(payload) // width) * width, rng.choice(NUMBERS)
        numbers[at:at + width] = struct.pack('<q', value)[:width]
        records[key] = bytes(numbers)
        return f'{value} at {at}'
    if not key.startswith((b'index/', b'image/')) and rng.random() < 0.85:
        try:
            content, words = mutated(json.loads(payload), rng)
            records[key] = dump(content)
            return words
        except (ValueError, RecursionError):  # after another change it is no JSON any more
            pass
    records[key], words = damaged(payload, rng)
    return words


def _lose(records: dict[bytes, bytes], key: bytes, rng: random.Random) -> str:
    del records[key]
    return 'lost'


def _rename(records: dict[bytes, bytes], key: bytes, rng: random.Random) -> str:
    new = rng.choice([key + b'0', b'image/' + b'9' * 19, b'\0', b'zzz', key[:-1] or b'm'])
    records[new] = records.pop(key)
    return f'under the key {new!r}'


def _exchange(records: dict[bytes, bytes], key: bytes, rng: random.Random) -> str:
    other = rng.choice(sorted(records))
    records[key], records[other] = records[other], records[key]
    return f'exchanged with {other!r}'


def _add(records: dict[bytes, bytes], key: bytes, rng: random.Random) -> str:
    new = rng.choice([b'image/' + b'9' * 19, b'json/' + b'0' * 18 + b'1', b'other', b'\xff' * 9])
    records[new] = records[key]
    return f'also under {new!r}'


def _recount(files: Files) -> str:
    """Let ``meta`` count the records that there are."""
    for records in files.values():
        try:
            meta = json.loads(records[b'meta'])
            meta['counts']['records'] = len(records)
            records[b'meta'] = json.dumps(meta).encode()
        except (KeyError, TypeError, ValueError, RecursionError):
            pass
    return 'recounted'
