"""COCO annotation files that are odd, wrong or hostile, packed as users pack them."""
import json
import random
import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)
import numpy as np
import torch
from fuzzing.case import Case
from fuzzing.damaged_bytes import damaged
from fuzzing.hostile_json import dump, mutated
from fuzzing.tiny_coco import write_tiny_coco
from mmdet.datasets import CocoDataset

from mmdet_bpu.datasets import CocoLMDBDataset, CocoLMDBMetric, CocoStore, pack_coco
from mmdet_bpu.datasets.dropped_annotations import DROPPED
from mmdet_bpu.errors import BpuError

ODD = {
    'iscrowd': [0, 1, None, True, '0', 'no', '', 2, -1, 0.5, 1.0],
    'ignore': [0, 1, None, 'false', []],
    'area': [0, -1, 1e-300, 0.5, 1e10, 1e11, 10**400, True],
    'bbox': [[0, 0, 0, 5], [0, 0, 5, -5], [-9, -9, 9, 9], [31, 1, 9, 9], [1, 1, 0.99, 9],
             [1e-9, 0, 1, 1], [2**52, 0, 1, 1], [5, 5, 1e9, 1e9]],
    'id': [0, -1, 2, 2.5, 'x', '7', True, 2**62, -0.0],
    'image_id': [0, 5, 5.0, '5', 6, False], 'category_id': [3, 7, 3.0, '3', 4, -1],
    'name': ['cat', 'dog', '', 'Cat'], 'width': [1, 31, 32.0, 33, True, 2**31 - 1],
    'height': [1, 24.0, 20, 25], 'file_name': ['a.jpg', './a.jpg', 'deep/../a.jpg', 'b.png', 'none']}
"""Values near what is right, by field."""


class Packing(NamedTuple):
    """What is packed.

    Attributes:
        content (bytes): The annotation file.
        options (dict): Arguments of ``pack_coco``.
    """
    content: bytes
    options: dict


class Annotations:
    name = 'annotations'

    def prepare(self, folder: Path) -> None:
        self._images, self._file = write_tiny_coco(folder)
        self._seed = self._file.read_bytes()
        self._out = folder / 'out' / 'lmdb'

    def case(self, rng: random.Random) -> Case:
        options = dict(on_error=rng.choice(['stop', 'skip']),
                       check_images=rng.choice(['none', 'header', 'decode']))
        kind = rng.random()
        if kind < 0.05:
            content, words = damaged(self._seed, rng)
        elif kind < 0.4:
            document, words = mutated(json.loads(self._seed), rng)
            content = dump(document)
        else:
            document = json.loads(self._seed)
            words = '; '.join(_make_odd(document, rng) for _ in range(rng.choice([1, 1, 2, 3])))
            content = dump(document)
        return Case(Packing(content, options), f'{words} {options}')

    def run(self, case: Case) -> str:
        packing: Packing = case.data
        shutil.rmtree(self._out.parent, ignore_errors=True)
        self._file.write_bytes(packing.content)
        try:
            meta = pack_coco(self._images, self._file, self._out, processes=1, **packing.options)
        except BpuError:
            rest = [path.name for path in self._out.parent.glob('*')]
            if rest and packing.options['on_error'] == 'skip':
                raise AssertionError(f'left behind: {rest}') from None
            raise
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return 'equal' if self._is_trained_and_evaluated(meta) else 'different'

    def _is_trained_and_evaluated(self, meta: dict) -> bool:
        """Whether training sees what stock mmdet and the report say, and evaluation ends."""
        ours = CocoLMDBDataset(lmdb=str(self._out), test_mode=True)
        classes = ours.metainfo['classes']
        metric = CocoLMDBMetric(str(self._out))
        metric.dataset_meta = ours.metainfo
        samples = [ours.get_data_info(n) for n in range(len(ours))]
        kept = sum(len(sample['instances']) for sample in samples)
        dropped = sum(found['count'] for kind, found in meta['report']['notices'].items()
                      if kind in DROPPED)
        if kept + dropped != meta['counts']['annotations']:
            return False
        if samples and classes:
            for sample in samples:
                metric.process({}, [_perfect(sample)])
            metric.evaluate(len(samples))
        # Stock mmdet, on the file that the database stands for.
        self._file.write_text(json.dumps(CocoStore(self._out).to_coco()))
        stock = CocoDataset(ann_file=str(self._file), metainfo=dict(classes=classes),
                            data_prefix=dict(img=''), test_mode=True, serialize_data=False)
        expected = [stock.get_data_info(n) for n in range(len(stock))]
        for sample in samples:
            del sample['lmdb_path']
        return json.dumps(samples, sort_keys=True) == json.dumps(expected, sort_keys=True)


def _make_odd(document: dict, rng: random.Random) -> str:
    """Give an entry another value, take one away, or repeat an entry."""
    name = rng.choice(['images', 'annotations', 'annotations', 'annotations', 'categories'])
    entries = document[name]
    position = rng.randrange(len(entries))
    entry, kind = entries[position], rng.random()
    if kind < 0.1:
        entries.append({**entry, 'id': rng.choice([entry['id'], 99])})
        return f'{name}[{position}] again with id {entries[-1]["id"]}'
    field = rng.choice(sorted({*entry, *(('ignore', ) if name == 'annotations' else ())}
                              & ODD.keys()))
    if kind < 0.2:
        entry.pop(field, None)
        return f'{name}[{position}] without {field}'
    entry[field] = rng.choice(ODD[field])
    return f'{name}[{position}].{field} = {str(entry[field])[:30]}'


def _perfect(sample: dict) -> dict:
    """What a detector says that finds all of a sample, and one thing more."""
    found = [*sample['instances'], dict(bbox=[1, 1, 3, 3], bbox_label=0)]
    boxes = np.array([instance['bbox'] for instance in found], np.float32)
    return dict(img_id=sample['img_id'], ori_shape=(sample['height'], sample['width']),
                pred_instances=dict(
                    bboxes=torch.from_numpy(boxes), scores=torch.arange(len(found), 0, -1.),
                    labels=torch.tensor([instance['bbox_label'] for instance in found])))
