"""Check a COCO annotation file: what stops packing, and what is only worth a note."""
import hashlib
import json
import math
import reprlib
from collections import Counter
from pathlib import Path

from mmdet_bpu.datasets.coco_evaluation import (categories_apart, crowd_flag,
                                                describe_repeated_names, evaluated_apart,
                                                repeated_names)
from mmdet_bpu.datasets.dropped_annotations import why_dropped
from mmdet_bpu.datasets.lmdb_format import MAX_IMAGE_ID
from mmdet_bpu.datasets.packing_report import PackingReport, first_names
from mmdet_bpu.errors import BpuError

# What CocoDataset reads of an entry; it fails in the middle of its start when one is missing.
REQUIRED_FIELDS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}
ID_FIELDS = {'id', 'image_id', 'category_id'}
# COCO's own boxes reach up to a pixel over the edge by rounding.
EDGE_TOLERANCE_PX = 1.0
MAX_PX = 2**53  # up to here a float holds every integer; nan and inf are not below it
MAX_SIDE = 2**31 - 1  # px, of a PNG; no image format that is read here allows more
NO_CROWD_FLAG = 'iscrowd is absent or null, taken as 0'


def read_json(path: Path) -> tuple[dict, str]:
    """Content and SHA-256 of a JSON file.

    Raises:
        BpuError: If it cannot be read or is not JSON.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BpuError(f'cannot read annotation file {path}: {error.strerror}') from None
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BpuError(f'annotation file {path} is not valid JSON: {error}') from None
    return content, hashlib.sha256(raw).hexdigest()


def check_annotation_file(path: Path, content) -> None:
    """Refuse what is not COCO detection JSON.

    Args:
        path (Path): Names the file in messages.
        content: The JSON content.

    Raises:
        BpuError: If a list or a field is missing or of the wrong kind, an id repeats, an image id
            is no key, an image has no size, a box is not four numbers, ``iscrowd`` is neither 0
            nor 1, or two categories have one name.
    """
    expected = 'expected COCO detection JSON with "images", "annotations" and "categories"'
    if not isinstance(content, dict):
        raise BpuError(f'{path}: {expected}, found a {type(content).__name__}')
    for name in REQUIRED_FIELDS:
        entries = content.get(name, [] if name == 'annotations' else None)
        if not isinstance(entries, list):
            raise BpuError(f'{path}: {expected}; "{name}" is '
                           f'{"missing" if entries is None else "not a list"}')
        check_entries(f'{path}: ', name, entries)
    repeated = repeated_names(content['categories'])
    if repeated:
        raise BpuError(f'{path}: {describe_repeated_names(repeated)}, which shifts the labels of '
                       'others: rename or merge them')


def check_entries(place: str, name: str, entries: list) -> None:
    """Refuse entries of one of the three lists that a data set cannot be made of.

    Args:
        place (str): What the message begins with.
        name (str): 'images', 'annotations' or 'categories'.
        entries (list): The entries.

    Raises:
        BpuError: If one is not as COCO has it, or two have one id.
    """
    for position, entry in enumerate(entries):
        lacking = [field for field in REQUIRED_FIELDS[name]
                   if not isinstance(entry, dict) or field not in entry]
        if lacking:
            raise BpuError(f'{place}{name}[{position}] lacks {", ".join(lacking)}')
        for field in ID_FIELDS & entry.keys():
            if not isinstance(entry[field], str) and not (
                    isinstance(entry[field], (int, float)) and abs(entry[field]) < 2**63):
                raise BpuError(f'{place}{name}[{position}].{field}: expected a number of 64 '
                               f'bits or a name, found {_short(entry[field])}')
    repeated = [i for i, n in Counter(entry['id'] for entry in entries).items() if n > 1]
    if repeated:
        raise BpuError(f'{place}{len(repeated)} id(s) appear more than once in "{name}": '
                       f'{first_names(repeated)}')
    check = {'images': _check_image, 'annotations': _check_annotation,
             'categories': _check_category}[name]
    for position, entry in enumerate(entries):
        check(place, position, entry)


def complete_crowd_flags(report: PackingReport, annotations: list[dict]) -> None:
    """Give annotations without ``iscrowd`` the 0 that ``CocoDataset`` takes them to have.

    pycocotools does not: it fails at the end of the first evaluation.

    Args:
        report (PackingReport): Gets the notes.
        annotations (list[dict]): Checked entries; changed in place.
    """
    for annotation in annotations:
        if annotation.get('iscrowd') is None:
            annotation['iscrowd'] = 0
            report.notice(NO_CROWD_FLAG, _name(annotation))


def note_unusual(report: PackingReport, images: list[dict], annotations: dict[int, list[dict]],
                 categories: list[dict]) -> None:
    """Note what CocoDataset drops, what pycocotools treats apart, and what looks like a mistake.

    Every annotation that training does not see is counted once among ``DROPPED``.

    Args:
        report (PackingReport): Gets the notes.
        images (list[dict]): Checked entries.
        annotations (dict[int, list[dict]]): Checked entries by image id.
        categories (list[dict]): Checked entries.
    """
    for kind, name in categories_apart(categories):
        report.notice(kind, name)
    known = {category['id'] for category in categories}
    for image in images:
        width, height = image['width'], image['height']
        for annotation in annotations[image['id']]:
            x, y, w, h = annotation['bbox']
            dropped = why_dropped(annotation, width, height, known)
            if dropped is not None:
                report.notice(dropped, _name(annotation))
            elif max(-x, -y, x + w - width, y + h - height) > EDGE_TOLERANCE_PX:
                report.notice('box reaches over the edge of its image', _name(annotation))
            if annotation['category_id'] in known:
                for kind in evaluated_apart(annotation, dropped is not None):
                    report.notice(kind, _name(annotation))


def _name(annotation: dict) -> str:
    return f"annotation {annotation['id']} of image {annotation['image_id']}"


def _check_annotation(place: str, _: int, annotation: dict) -> None:
    box, area = annotation['bbox'], annotation['area']
    expected = f"{place}annotation {annotation['id']}: expected"
    if not (isinstance(box, list) and len(box) == 4
            and all(isinstance(side, (int, float)) and abs(side) < MAX_PX for side in box)):
        raise BpuError(f'{expected} bbox [x, y, width, height] in px, found {_short(box)}')
    if not (isinstance(area, (int, float)) and _is_finite(area)):
        raise BpuError(f'{expected} area in square px, found {_short(area)}')
    mask = annotation.get('segmentation')
    if mask and not (isinstance(mask, (list, dict)) and _numbers_fit(mask)):
        raise BpuError(f'{expected} segmentation as polygons or a run-length encoding of numbers of '
                       f'64 bits, found {_short(mask)}')
    try:
        crowd_flag(annotation)
    except BpuError as error:
        raise BpuError(f'{place}{error}') from None


def _numbers_fit(mask: list | dict) -> bool:
    """Whether every list of numbers in a segmentation is one of 64 bits."""
    lists = mask.values() if isinstance(mask, dict) else mask
    for numbers in lists:
        if isinstance(numbers, int):
            numbers = [numbers]
        try:
            if isinstance(numbers, list) and numbers \
                    and (max(numbers) >= 2**63 or min(numbers) < -2**63):
                return False
        except TypeError:  # no numbers: what reads masks says so
            continue
    return True


def _check_category(place: str, position: int, category: dict) -> None:
    if not isinstance(category['name'], str):
        raise BpuError(f'{place}categories[{position}].name: expected a name, found '
                       f"{_short(category['name'])}")


def _short(value) -> str:
    """A value of a file in a message: a hostile one may be of any length."""
    return reprlib.repr(value)


def _is_finite(number: int | float) -> bool:
    """Also of an integer that no float can hold."""
    return isinstance(number, int) or math.isfinite(number)


def _check_image(place: str, position: int, image: dict) -> None:
    place += f'images[{position}]'
    image_id = image['id']
    if type(image_id) is not int or not 0 <= image_id <= MAX_IMAGE_ID:
        raise BpuError(f'{place}.id: expected an integer from 0 to 2**63 - 1, found {image_id!r}')
    if not isinstance(image['file_name'], str) or not image['file_name']:
        raise BpuError(f"{place}.file_name: expected a name, found {_short(image['file_name'])}")
    for side in ('width', 'height'):
        size = image[side]
        if not isinstance(size, (int, float)) or not 0 < size <= MAX_SIDE or size % 1:
            raise BpuError(f'{place}.{side}: expected a number of px, found {_short(size)}')
