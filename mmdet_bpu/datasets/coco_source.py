"""A COCO data set as files: the annotation file, read and checked, and the images it names."""
import hashlib
import io
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from PIL import Image

from mmdet_bpu.datasets.lmdb_format import MAX_IMAGE_ID, ImageIndex
from mmdet_bpu.errors import BpuError

# What CocoDataset reads of an entry; it fails in the middle of its start when one is missing.
REQUIRED_FIELDS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}
NAMES_SHOWN = 10


@dataclass
class CocoSource:
    """A checked annotation file and the folder of its images.

    Attributes:
        ann_file (Path): The annotation file.
        img_dir (Path): Folder that ``file_name`` refers to.
        images (list[dict]): In the file's order.
        annotations (dict[int, list[dict]]): Image id to its annotations, in the file's order.
        fields (dict): Every other top-level field, ``categories`` among them.
        sha256 (str): Of the annotation file.
    """
    ann_file: Path
    img_dir: Path
    images: list[dict]
    annotations: dict[int, list[dict]]
    fields: dict
    sha256: str

    @classmethod
    def read(cls, ann_file: str | Path, img_dir: str | Path) -> 'CocoSource':
        """Read and check.

        Raises:
            BpuError: If the file is not COCO detection JSON, ids repeat, an annotation points at no
                image, or images are missing. The message names them.
        """
        ann_file, img_dir = Path(ann_file), Path(img_dir)
        content, sha256 = _read_json(ann_file)
        _check_fields(ann_file, content)
        images = content.pop('images')
        annotations: dict[int, list[dict]] = {image['id']: [] for image in images}
        lost = []
        for annotation in content.pop('annotations', []):
            of_image = annotations.get(annotation['image_id'])
            if of_image is None:
                lost.append(f"{annotation['id']} (image_id {annotation['image_id']})")
            else:
                of_image.append(annotation)
        if lost:
            raise BpuError(f'{ann_file}: {len(lost)} annotation(s) point at an image id that is '
                           f'not in "images": {_first(lost)}; remove them or add the images')
        source = cls(ann_file, img_dir, images, annotations, content, sha256)
        source._check_images_exist()
        return source

    def image_path(self, image: dict) -> Path:
        """Where the file of an entry of ``images`` is."""
        return self.img_dir / image['file_name']

    def index(self) -> ImageIndex:
        """Ids, sizes and categories of all images."""
        return ImageIndex.from_coco(self.images, self.annotations, self.fields['categories'])

    def counts(self) -> dict:
        """Number of images, annotations and categories."""
        return dict(images=len(self.images),
                    annotations=sum(map(len, self.annotations.values())),
                    categories=len(self.fields['categories']))

    def description(self) -> dict:
        """Names (no folders of this machine) and hash of what was packed."""
        return dict(annotation_file=self.ann_file.name, annotation_sha256=self.sha256,
                    image_folder=self.img_dir.resolve().name)

    def _check_images_exist(self) -> None:
        if not self.img_dir.is_dir():
            raise BpuError(f'image folder {self.img_dir} does not exist')
        missing = [image['file_name'] for image in self.images
                   if not os.path.isfile(self.image_path(image))]
        if missing:
            raise BpuError(f'{len(missing)} of {len(self.images)} images named by {self.ann_file} '
                           f'are not in {self.img_dir}: {_first(missing)}')


def read_image(path: Path) -> bytes:
    """The bytes of an image file whose header is that of an image.

    Raises:
        BpuError: If it cannot be read or is not an image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BpuError(f'cannot read image {path}: {error.strerror}') from None
    try:
        with Image.open(io.BytesIO(content)):
            pass
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = 'empty file' if not content else type(error).__name__
        raise BpuError(f'{path} is not a readable image ({reason}, {len(content)} bytes); '
                       'replace it or remove it from the annotation file') from None
    return content


def _read_json(path: Path) -> tuple[dict, str]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BpuError(f'cannot read annotation file {path}: {error.strerror}') from None
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BpuError(f'annotation file {path} is not valid JSON: {error}') from None
    return content, hashlib.sha256(raw).hexdigest()


def _check_fields(path: Path, content) -> None:
    expected = 'expected COCO detection JSON with "images", "annotations" and "categories"'
    if not isinstance(content, dict):
        raise BpuError(f'{path}: {expected}, found a {type(content).__name__}')
    for name, required in REQUIRED_FIELDS.items():
        entries = content.get(name, [] if name == 'annotations' else None)
        if not isinstance(entries, list):
            raise BpuError(f'{path}: {expected}; "{name}" is '
                           f'{"missing" if entries is None else "not a list"}')
        for position, entry in enumerate(entries):
            lacking = [field for field in required
                       if not isinstance(entry, dict) or field not in entry]
            if lacking:
                raise BpuError(f'{path}: {name}[{position}] lacks {", ".join(lacking)}')
        repeated = [i for i, n in Counter(entry['id'] for entry in entries).items() if n > 1]
        if repeated:
            raise BpuError(f'{path}: {len(repeated)} id(s) appear more than once in "{name}": '
                           f'{_first(repeated)}')
    for annotation in content.get('annotations', []):
        box = annotation['bbox']
        if not (isinstance(box, list) and len(box) == 4
                and all(isinstance(side, (int, float)) for side in box)):
            raise BpuError(f"{path}: annotation {annotation['id']}: expected bbox "
                           f'[x, y, width, height] in px, found {box!r}')
    for position, image in enumerate(content['images']):
        image_id = image['id']
        if type(image_id) is not int or not 0 <= image_id <= MAX_IMAGE_ID:
            raise BpuError(f'{path}: images[{position}].id: expected an integer from 0 to '
                           f'2**63 - 1, found {image_id!r}')


def _first(names: Iterable) -> str:
    names = [str(name) for name in names]
    more = f' and {len(names) - NAMES_SHOWN} more' if len(names) > NAMES_SHOWN else ''
    return ', '.join(names[:NAMES_SHOWN]) + more
