"""Detect in pictures from disk, draw what is found, and write it as JSON."""
import json
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple, Union

import cv2
import numpy as np

from mmdet_bpu.analysis.pictures import draw, side_by_side
from mmdet_bpu.errors import BpuError
from mmdet_bpu.output_folder import staged_folder
from mmdet_bpu.steps import with_bar

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
DETECTIONS_FILE = 'detections.json'


def find_pictures(images: Union[str, Path, Sequence]) -> List[Tuple[Path, Path]]:
    """Files of pictures, folders searched at any depth, in order of their names.

    Args:
        images (str | Path | Sequence): Files and folders.

    Returns:
        list[tuple[Path, Path]]: File, and name of its drawn picture: its place under the folder,
        ending with .png.

    Raises:
        BpuError: A path does not exist, or there is no picture.
    """
    images = [images] if isinstance(images, (str, Path)) else images
    found = []
    for path in map(Path, images):
        if path.is_file():
            found.append((path, Path(path.name)))
        elif path.is_dir():
            found += [(file, file.relative_to(path)) for file in sorted(path.rglob('*'))
                      if file.suffix.lower() in SUFFIXES]
        else:
            raise BpuError(f'{path} not found; expected a picture or a folder of pictures')
    if not found:
        raise BpuError(f'no pictures in {", ".join(map(str, images))}; expected files ending with '
                       f'{", ".join(SUFFIXES)}')
    return _distinct_names(found)


def _distinct_names(found: List[Tuple[Path, Path]]) -> List[Tuple[Path, Path]]:
    """Drawn names end with .png; a name that is taken already gets a number."""
    taken, named = set(), []
    for file, name in found:
        target, number = name.with_suffix('.png'), 1
        while target in taken:
            number += 1
            target = name.with_name(f'{name.stem}_{number}.png')
        taken.add(target)
        named.append((file, target))
    return named


def read_picture(path: Path) -> np.ndarray:
    """(height, width, 3) uint8, blue first, turned as its EXIF orientation says.

    Raises:
        BpuError: It cannot be decoded.
    """
    data = np.fromfile(path, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise BpuError(f'picture {path} cannot be decoded ({data.size} bytes); expected one of '
                       f'{", ".join(SUFFIXES)}')
    return image


def detect_in_pictures(predictors: Sequence[Any], images: Union[str, Path, Sequence],
                       out_dir: Union[str, Path], score_thr: float) -> Dict[str, Any]:
    """Run predictors over pictures; the drawn pictures and ``detections.json`` appear together.

    Args:
        predictors (Sequence[Any]): One, or several whose results stand side by side. Each has
            ``title``, ``classes`` and ``predict(image)``.
        images (str | Path | Sequence): Files and folders.
        out_dir (str | Path): Folder to write.
        score_thr (float): Boxes below this score are neither drawn nor written.

    Returns:
        dict: What ``detections.json`` holds: ``models``, ``score_thr`` and ``images``, each with
        ``file``, ``picture``, ``width``, ``height`` and one list of detections per model.

    Raises:
        BpuError: A picture is missing or unreadable, or ``out_dir`` cannot be written, and is then
            as it was.
    """
    if not 0 <= score_thr <= 1:
        raise BpuError(f'parameter score_thr: expected a number from 0 to 1, found {score_thr}')
    rows = []
    with staged_folder(out_dir) as folder:
        for path, name in with_bar(find_pictures(images), 'pictures'):
            image = read_picture(path)
            found = [predictor.predict(image).above(score_thr) for predictor in predictors]
            drawn = [(predictor.title, draw(image, each, predictor.classes))
                     for predictor, each in zip(predictors, found)]
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            picture = drawn[0][1] if len(drawn) == 1 else side_by_side(drawn)
            if not cv2.imwrite(str(target), picture):
                raise BpuError(f'parameter out_dir: cannot write {name} into {out_dir}')
            rows.append(dict(
                file=str(path), picture=str(name), width=image.shape[1], height=image.shape[0],
                detections=[each.as_rows(predictor.classes)
                            for predictor, each in zip(predictors, found)]))
        result = dict(models=[predictor.title for predictor in predictors], score_thr=score_thr,
                      images=rows)
        (folder / DETECTIONS_FILE).write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    return result
