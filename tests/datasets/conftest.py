"""A small COCO data set with the corners that real ones have."""
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import mmdet_bpu.openmmlab  # noqa: F401  (lets mmdet be imported beside mmcv-lite)


class CocoFiles(NamedTuple):
    img_dir: Path
    ann_file: Path

    def content(self) -> dict:
        return json.loads(self.ann_file.read_text())

    def rewrite(self, **fields) -> None:
        self.ann_file.write_text(json.dumps({**self.content(), **fields}))


# Not in id order, ids not dense; (id, file name, width, height).
IMAGES = [(139, 'a.jpg', 64, 48), (7, 'b.png', 40, 56), (2**40, 'deep/er/c.jpg', 33, 31),
          (0, 'empty.jpg', 50, 50), (25, 'rotated.jpg', 60, 30), (26, 'tiny.jpg', 20, 90),
          (27, 'grey.png', 70, 70), (90, 'only_bird.jpg', 64, 64)]
CATEGORIES = [dict(id=18, name='dog', supercategory='animal'), dict(id=3, name='cat'),
              dict(id=5, name='bird')]


def _annotation(number, image_id, category_id, bbox, **fields):
    fields = {'area': bbox[2] * bbox[3] * 0.7, 'iscrowd': 0, **fields}
    return dict(id=number, image_id=image_id, category_id=category_id, bbox=bbox, **fields)


ANNOTATIONS = [
    _annotation(1, 7, 3, [1.25, 2.1, 20.3333, 30.07], segmentation=[[1, 2, 20, 2.5, 20, 30]]),
    _annotation(2, 139, 18, [5, 5, 30, 30]),
    _annotation(3, 7, 18, [0, 0, 39, 55]),
    _annotation(4, 139, 3, [10, 10, 20.5, 20.5], iscrowd=1,
                segmentation=dict(size=[48, 64], counts=[10, 20, 3042])),
    _annotation(5, 2**40, 3, [-5, -5, 20, 20]),
    _annotation(6, 2**40, 5, [30, 30, 0.5, 10]),  # narrower than 1 px: dropped by CocoDataset
    _annotation(7, 25, 5, [100, 100, 10, 10]),  # outside
    _annotation(8, 26, 5, [1, 1, 10, 60], ignore=1),
    _annotation(9, 27, 3, [1, 1, 50, 50], area=0),
    _annotation(10, 90, 5, [8, 8, 48, 48]),
    _annotation(11, 25, 18, [2, 2, 40, 20]),
    _annotation(12, 27, 18, [3, 3, 40, 20]),
]


def _encoded(name: str, width: int, height: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    shape = (height, width) if name.startswith('grey') else (height, width, 3)
    image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    options = {}
    if name.startswith('rotated'):
        options['exif'] = Image.Exif()
        options['exif'][0x0112] = 6  # orientation: turn by 90 degrees to see it upright
    buffer = io.BytesIO()
    image.save(buffer, 'PNG' if name.endswith('png') else 'JPEG', **options)
    return buffer.getvalue()


def write_coco(folder: Path, categories: list[dict] = CATEGORIES) -> CocoFiles:
    files = CocoFiles(folder / 'images', folder / 'instances.json')
    for seed, (_, name, width, height) in enumerate(IMAGES):
        path = files.img_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_encoded(name, width, height, seed))
    images = [dict(id=i, file_name=name, width=w, height=h, license=1) for i, name, w, h in IMAGES]
    files.ann_file.write_text(json.dumps(dict(
        info=dict(description='Straße, 道'), licenses=[], images=images,
        annotations=ANNOTATIONS, categories=categories)))
    return files


@pytest.fixture(scope='session')
def make_coco():
    """Write the data set into a folder: ``make_coco(folder, categories) -> CocoFiles``."""
    return write_coco


@pytest.fixture
def coco_files(tmp_path) -> CocoFiles:
    """The data set as files, free to be changed."""
    return write_coco(tmp_path / 'coco')


@pytest.fixture
def packed(coco_files, tmp_path) -> Path:
    """The same as a database, free to be changed."""
    from mmdet_bpu.datasets import pack_coco
    pack_coco(*coco_files, tmp_path / 'packed_lmdb')
    return tmp_path / 'packed_lmdb'


@pytest.fixture(scope='session')
def coco128():
    """128 images of COCO train2017 as files."""
    folder = Path(__file__).parents[2].parent / 'shared/data/coco128'
    if not folder.is_dir():
        pytest.skip('shared/data/coco128 is not beside the repository')
    return CocoFiles(folder / 'train2017', folder / 'annotations/instances_train2017.json')
