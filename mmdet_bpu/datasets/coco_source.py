"""A COCO data set as files: the annotation file, read and checked, and the images it names."""
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from mmdet_bpu.datasets.coco_annotations import (check_annotation_file, check_entries,
                                                 complete_crowd_flags, read_json)
from mmdet_bpu.datasets.packing_report import PackingReport, first_names
from mmdet_bpu.datasets.picture_files import find_pictures, picture_size
from mmdet_bpu.errors import BpuError

MISSING = 'is missing'
NO_PICTURE = 'is no picture'
UNANNOTATED = 'no annotations'
"""Stands where the name of an annotation file would."""
ORPHAN = 'annotation points at no image, left out'


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
        subset (int | None): Only so many images were taken.
        report (PackingReport): What was left out or is unusual.
    """
    ann_file: Path
    img_dir: Path
    images: list[dict]
    annotations: dict[int, list[dict]]
    fields: dict
    sha256: str
    subset: int | None = None
    report: PackingReport = field(default_factory=PackingReport)

    @classmethod
    def read(cls, ann_file: str | Path, img_dir: str | Path, subset: int | None = None,
             skip_faults: bool = False) -> 'CocoSource':
        """Read and check.

        Args:
            ann_file (str | Path): COCO detection annotations, JSON.
            img_dir (str | Path): Folder of the images.
            subset (int, optional): Only the first so many images of the file. Defaults to None:
                all.
            skip_faults (bool): Leave out missing images and annotations that point at no image
                instead of raising. Defaults to False.

        Raises:
            BpuError: If the file is not COCO detection JSON, ids repeat, an annotation points at no
                image, or images are missing. The message names them.
        """
        ann_file, img_dir = Path(ann_file), Path(img_dir)
        content, sha256 = read_json(ann_file)
        check_annotation_file(ann_file, content)
        images = content.pop('images')
        annotations: dict[int, list[dict]] = {image['id']: [] for image in images}
        orphans = []
        for annotation in content.pop('annotations', []):
            of_image = annotations.get(annotation['image_id'])
            if of_image is None:
                orphans.append(f"{annotation['id']} (image_id {annotation['image_id']})")
            else:
                of_image.append(annotation)
        if orphans and not skip_faults:
            raise BpuError(f'{ann_file}: {len(orphans)} annotation(s) point at an image id that is '
                           f'not in "images": {first_names(orphans)}; remove them, add the images, '
                           "or leave them out with parameter on_error='skip'")
        if subset is not None:
            images = cls._first_images(ann_file, images, subset)
            annotations = {image['id']: annotations[image['id']] for image in images}
        source = cls(ann_file, img_dir, images, annotations, content, sha256, subset)
        for of_image in annotations.values():
            complete_crowd_flags(source.report, of_image)
        for orphan in orphans:
            source.report.notice(ORPHAN, orphan)
        source._look_for_images(skip_faults)
        return source

    @classmethod
    def of_pictures(cls, img_dir: str | Path, subset: int | None = None,
                    skip_faults: bool = False) -> 'CocoSource':
        """A folder of pictures, at any depth, that nobody has annotated: no categories.

        Args:
            img_dir (str | Path): The folder.
            subset (int, optional): Only the first so many pictures by name. Defaults to None: all.
            skip_faults (bool): Leave out what is no picture instead of raising. Defaults to False.

        Raises:
            BpuError: If there is no picture, or one cannot be read.
        """
        images, faults = [], []
        for number, picture in enumerate(find_pictures(img_dir)):
            image = dict(id=number, file_name=picture.name.as_posix())
            try:
                height, width = picture_size(picture.path)
            except BpuError:
                if not skip_faults:
                    raise
                faults.append(image)
                height = width = 1
            images.append(dict(image, width=width, height=height))
        check_entries(f'{img_dir}: ', 'images', images)
        if subset is not None:
            images = cls._first_images(Path(img_dir), images, subset)
        listed = hashlib.sha256('\n'.join(image['file_name'] for image in images).encode(
            'utf-8', 'surrogateescape'))
        source = cls(Path(UNANNOTATED), Path(img_dir), images, {image['id']: [] for image in images},
                     dict(categories=[]), listed.hexdigest(), subset)
        for image in faults:
            if image['id'] in source.annotations:
                source.leave_out(image, NO_PICTURE)
        return source

    def image_path(self, image: dict) -> Path:
        """Where the file of an entry of ``images`` is."""
        return self.img_dir / image['file_name']

    def leave_out(self, image: dict, reason: str) -> None:
        """Drop an image and its annotations, and report it."""
        self.report.skip(image, reason)
        del self.annotations[image['id']]

    def kept_images(self) -> list[dict]:
        """The images that were not left out, in the file's order."""
        return [image for image in self.images if image['id'] in self.annotations]

    def counts(self) -> dict:
        """Number of images, annotations and categories that were not left out."""
        return dict(images=len(self.annotations),
                    annotations=sum(map(len, self.annotations.values())),
                    categories=len(self.fields['categories']))

    def description(self) -> dict:
        """Names (no folders of this machine) and hash of what is packed."""
        return dict(annotation_file=self.ann_file.name, annotation_sha256=self.sha256,
                    image_folder=self.img_dir.resolve().name, subset=self.subset)

    @staticmethod
    def _first_images(ann_file: Path, images: list[dict], subset: int) -> list[dict]:
        if not 1 <= subset <= len(images):
            raise BpuError(f'parameter subset: expected 1 to {len(images)}, the number of images '
                           f'of {ann_file}, found {subset}')
        return images[:subset]

    def _look_for_images(self, skip_faults: bool) -> None:
        if not self.img_dir.is_dir():
            raise BpuError(f'image folder {self.img_dir} does not exist')
        present: dict[str, set[str]] = {}
        missing = []
        for image in self.images:
            folder, name = os.path.split(image['file_name'])
            if folder not in present:
                present[folder] = _file_names(self.img_dir / folder)
            if name not in present[folder]:
                missing.append(image)
        if missing and not skip_faults:
            raise BpuError(f'{len(missing)} of {len(self.images)} images named by {self.ann_file} '
                           f'are not in {self.img_dir}: '
                           f'{first_names(image["file_name"] for image in missing)}; add them, or '
                           "leave them out with parameter on_error='skip'")
        for image in missing:
            self.leave_out(image, MISSING)


def _file_names(folder: Path) -> set[str]:
    """Names of the files in a folder: one listing, where a look at each file takes a network disk
    a millisecond for each."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if _is_file(entry)}
    except (OSError, ValueError):  # ValueError: a name that no folder can have, such as 'a\0b'
        return set()


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a symbolic link in a circle
        return False
