"""Detect in pictures from disk, draw what is found, and write it as JSON."""
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import cv2

from mmdet_bpu.analysis.pictures import draw, side_by_side
from mmdet_bpu.datasets.picture_files import (PictureFile, find_pictures, read_source, shown)
from mmdet_bpu.errors import BpuError
from mmdet_bpu.output_folder import staged_folder
from mmdet_bpu.runtime.camera import Nv12Frame, as_picture, planes_of
from mmdet_bpu.steps import with_bar

DETECTIONS_FILE = 'detections.json'
LONGEST_NAME = 255  # bytes, of most file systems


def drawn_names(found: Sequence[PictureFile]) -> List[Tuple[Path, Path]]:
    """Files with the names of their drawn pictures, which end with .png.

    A name that is taken already gets a number. Bytes that are no UTF-8 become escapes, so that
    ``detections.json`` can name the file.
    """
    taken, named = set(), []
    for file, name in found:
        name, number = Path(shown(name)), 1
        target = name.with_suffix('.png')
        while target in taken:
            number += 1
            ending, stem = f'_{number}.png', name.stem
            while len(os.fsencode(stem + ending)) > LONGEST_NAME:
                stem = stem[:-1]
            target = name.with_name(stem + ending)
        taken.add(target)
        named.append((file, target))
    return named


def _refuse_replacing(named: Sequence[Tuple[Path, Path]], out_dir: Path) -> None:
    """A drawn picture never takes the place of one that it was drawn from."""
    sources = {os.path.realpath(file): file for file, _ in named}
    for _, target in named:
        source = sources.get(os.path.realpath(out_dir / target))
        if source is not None:
            raise BpuError(f'parameter out_dir: drawing into {out_dir} would replace the picture '
                           f'{shown(source)}; write to another folder')


def detect_in_pictures(predictors: Sequence[Any], images: Union[str, Path, Sequence],
                       out_dir: Union[str, Path], score_thr: float,
                       frame_size: Optional[Tuple[int, int]] = None) -> Dict[str, Any]:
    """Run predictors over pictures; the drawn pictures and ``detections.json`` appear together.

    Args:
        predictors (Sequence[Any]): One, or several whose results stand side by side. Each has
            ``title``, ``classes`` and ``predict(image)``; for raw frames also ``camera``, the
            ``preprocessing.camera`` of its contract.
        images (str | Path | Sequence): Files and folders.
        out_dir (str | Path): Folder to write.
        score_thr (float): Boxes below this score are neither drawn nor written.
        frame_size (tuple[int, int], optional): (width, height) of raw NV12 frames, px, which files
            are whose names do not end as those of pictures. Defaults to none.

    Returns:
        dict: What ``detections.json`` holds: ``models``, ``score_thr``; ``images``, each with
        ``file``, ``picture``, ``width``, ``height`` and one list of detections per model; and
        ``skipped``, each with ``file`` and ``reason``: what is no picture that can be read.

    Raises:
        BpuError: A path is missing, no picture can be read, a picture would be replaced, or
            ``out_dir`` cannot be written; it is then as it was.
    """
    if not 0 <= score_thr <= 1:
        raise BpuError(f'parameter score_thr: expected a number from 0 to 1, found {score_thr}')
    if frame_size is not None:
        _refuse_frames(predictors)
    named = drawn_names(find_pictures(images, frame_size is not None))
    _refuse_replacing(named, Path(out_dir))
    rows, skipped = [], []
    with staged_folder(out_dir) as folder:
        for path, name in with_bar(named, 'pictures'):
            try:
                source = read_source(path, frame_size)
                found = [predictor.predict(source).above(score_thr) for predictor in predictors]
                image = _as_picture(source, predictors[0])
                _write(predictors, image, found, folder / name)
            except BpuError as error:
                skipped.append(dict(file=shown(path), reason=str(error)))
                continue
            rows.append(dict(
                file=shown(path), picture=str(name), width=image.shape[1], height=image.shape[0],
                detections=[each.as_rows(predictor.classes)
                            for predictor, each in zip(predictors, found)]))
        if not rows:
            raise BpuError(f'{skipped[0]["reason"]}; none of {len(skipped)} pictures can be read')
        result = dict(models=[predictor.title for predictor in predictors], score_thr=score_thr,
                      images=rows, skipped=skipped)
        (folder / DETECTIONS_FILE).write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    return result


def _refuse_frames(predictors: Sequence[Any]) -> None:
    """Raw frames are for what takes them."""
    for predictor in predictors:
        if predictor.camera is None:
            raise BpuError(f'parameter frame_size: expected models that take a camera\'s frames '
                           f'(bpu.input_format nv12, yuv444, or gray of a camera), found '
                           f'{predictor.title}, which takes pictures')


def _as_picture(source: Any, predictor: Any) -> Any:
    """What is drawn on: the picture, or what a frame looks like."""
    if not isinstance(source, Nv12Frame):
        return source
    camera = dict(predictor.camera, format='nv12')
    return as_picture(planes_of(source, camera), camera)


def _write(predictors: Sequence[Any], image: Any, found: Sequence[Any], target: Path) -> None:
    """Draw what was found.

    Raises:
        BpuError: The picture cannot be drawn.
    """
    drawn = [(predictor.title, draw(image, each, predictor.classes))
             for predictor, each in zip(predictors, found)]
    picture = drawn[0][1] if len(drawn) == 1 else side_by_side(drawn)
    try:
        encoded, data = cv2.imencode(target.suffix, picture)
    except cv2.error as error:
        encoded, data = False, error.err
    if not encoded:
        raise BpuError(f'a drawn picture of {picture.shape[1]} x {picture.shape[0]} px cannot be '
                       f'encoded ({data})')
    # Not by cv2.imwrite, which takes only names that are UTF-8.
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data.tobytes())
