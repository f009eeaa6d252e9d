"""COCO data sets made for measuring: photo-like, repeated under new ids, or very many small images.

Everything is seeded: the same arguments give the same files on the same versions of the libraries.
"""
import json
import os
import shutil
from pathlib import Path
from typing import Iterator, NamedTuple

import cv2
import numpy as np

import mmdet_bpu.openmmlab  # noqa: F401  (lets mmdet be imported beside mmcv-lite)
from mmdet.datasets import CocoDataset

SPLIT = 'train2017'
# Mean number of boxes per image in COCO train2017 (860,001 of 118,287 images).
BOXES_PER_IMAGE = 7
PHOTO_QUALITY = 90
# Keeps size and annotations of a photo in about a tenth of its bytes.
SMALL_FILE_QUALITY = 5
SMALL_SIDE = 16  # px
DIFFERENT_PICTURES = 1000
# Of generated images: from here in steps, with gaps as COCO's own.
FIRST_ID, ID_STEP = 1, 3


class CocoFiles(NamedTuple):
    """A COCO data set as files."""
    img_dir: Path
    ann_file: Path

    @classmethod
    def under(cls, root: Path, split: str = SPLIT) -> 'CocoFiles':
        """In COCO's own layout."""
        return cls(root / split, root / 'annotations' / f'instances_{split}.json')

    def content(self) -> dict:
        """The annotation file."""
        return json.loads(self.ann_file.read_text(encoding='utf-8'))

    def write_content(self, content: dict) -> None:
        """Write the annotation file, with its folder."""
        self.ann_file.parent.mkdir(parents=True, exist_ok=True)
        self.ann_file.write_text(json.dumps(content), encoding='utf-8')


def photo_like(root: Path, count: int, width: int = 640, height: int = 480) -> CocoFiles:
    """Write ``count`` JPEGs of gradients and noise whose sides vary by up to a quarter.

    Args:
        root (Path): Folder of the new data set.
        count (int): Number of images.
        width (int): Mean width, px. Defaults to 640.
        height (int): Mean height, px. Defaults to 480.

    Returns:
        CocoFiles: With COCO's 80 classes and 7 boxes per image.
    """
    rng = np.random.default_rng(0)

    def pictures() -> Iterator[np.ndarray]:
        for _ in range(count):
            sides = (rng.uniform(0.75, 1.25, 2) * (height, width)).astype(int)
            yield _photo(rng, *sides)
    return _write(CocoFiles.under(root), pictures(), count, rng)


def many_small(root: Path, count: int) -> CocoFiles:
    """Write ``count`` JPEGs of 16 x 16 px with 7 boxes each.

    The pictures repeat after the first 1,000, as further names of the same files: a new file can
    take 0.7 ms on a slow disk, a name 0.02 ms. Ids, names and boxes are all different.
    """
    rng = np.random.default_rng(1)

    def pictures() -> Iterator[np.ndarray]:
        for _ in range(min(count, DIFFERENT_PICTURES)):
            coarse = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
            yield cv2.resize(coarse, (SMALL_SIDE, SMALL_SIDE))
    return _write(CocoFiles.under(root), pictures(), count, rng)


def first_images(source: CocoFiles, count: int, root: Path) -> CocoFiles:
    """The first ``count`` images of a data set, under an annotation file in ``root``."""
    content = source.content()
    content['images'] = content['images'][:count]
    kept = {image['id'] for image in content['images']}
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] in kept]
    files = CocoFiles(source.img_dir, CocoFiles.under(root).ann_file)
    files.write_content(content)
    return files


def repeated(source: CocoFiles, times: int, root: Path, copies: bool) -> CocoFiles:
    """A data set ``times`` as large: every image again under new image and annotation ids.

    Args:
        source (CocoFiles): What is repeated.
        times (int): How often.
        root (Path): Folder of the new data set.
        copies (bool): Copy the image files under new names; otherwise all entries of an image name
            the file that there is.
    """
    content = source.content()
    files = CocoFiles.under(root) if copies else CocoFiles(source.img_dir,
                                                           CocoFiles.under(root).ann_file)
    image_step = 1 + max(image['id'] for image in content['images'])
    annotation_step = 1 + max((a['id'] for a in content['annotations']), default=0)
    images, annotations = [], []
    for k in range(times):
        for image in content['images']:
            name = f"{k:03d}/{image['file_name']}" if copies else image['file_name']
            images.append({**image, 'id': image['id'] + k * image_step, 'file_name': name})
            if copies:
                target = files.img_dir / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source.img_dir / image['file_name'], target)
        annotations += [{**a, 'id': a['id'] + k * annotation_step,
                         'image_id': a['image_id'] + k * image_step}
                        for a in content['annotations']]
    files.write_content({**content, 'images': images, 'annotations': annotations})
    return files


def in_small_files(source: CocoFiles, root: Path) -> CocoFiles:
    """The same images, sizes and annotations in files of about a tenth of the bytes."""
    files = CocoFiles.under(root)
    content = source.content()
    for image in content['images']:
        pixels = cv2.imread(str(source.img_dir / image['file_name']),
                            cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        target = files.img_dir / image['file_name']
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_jpeg(pixels, SMALL_FILE_QUALITY))
    files.write_content(content)
    return files


def _write(files: CocoFiles, pictures: Iterator[np.ndarray], count: int,
           rng: np.random.Generator) -> CocoFiles:
    files.img_dir.mkdir(parents=True)
    entries, different = [], 0
    for image_id in range(FIRST_ID, FIRST_ID + ID_STEP * count, ID_STEP):
        name = f'{image_id:012d}.jpg'
        pixels = next(pictures, None)
        if pixels is None:
            shown = entries[len(entries) % different]
            os.link(files.img_dir / shown['file_name'], files.img_dir / name)
            entries.append({**shown, 'id': image_id, 'file_name': name})
        else:
            (files.img_dir / name).write_bytes(_jpeg(pixels, PHOTO_QUALITY))
            entries.append(dict(id=image_id, file_name=name, height=pixels.shape[0],
                                width=pixels.shape[1]))
            different = len(entries)
    categories = [dict(id=k + 1, name=name)
                  for k, name in enumerate(CocoDataset.METAINFO['classes'])]
    annotations = _annotations(entries, len(categories), rng)
    files.write_content(dict(images=entries, annotations=annotations, categories=categories))
    return files


def _annotations(entries: list[dict], categories: int, rng: np.random.Generator) -> list[dict]:
    """7 boxes inside each image, anywhere and of any size."""
    owners = [entry for entry in entries for _ in range(BOXES_PER_IMAGE)]
    sides = np.array([(owner['width'], owner['height']) for owner in owners])
    low, high = np.sort(rng.random((2, len(owners), 2)) * sides, axis=0)
    boxes = np.concatenate([low, high - low], axis=1).round(2)
    classes = rng.integers(1, categories + 1, len(owners))
    areas = boxes[:, 2] * boxes[:, 3]
    return [dict(id=number, image_id=owner['id'], category_id=category, bbox=box, area=area,
                 iscrowd=0)
            for number, (owner, category, box, area) in enumerate(
                zip(owners, classes.tolist(), boxes.tolist(), areas.tolist()), start=1)]


def _photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth regions, edges and sensor noise: about as many bytes per pixel as COCO's JPEGs."""
    coarse = rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    pixels += rng.normal(0, 12, (height, width, 1)).astype(np.float32)
    return pixels.clip(0, 255).astype(np.uint8)


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    return cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
