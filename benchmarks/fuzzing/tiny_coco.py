"""A COCO data set of a few small pictures, with one of each thing that annotations may have."""
import json
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = [(5, 'a.jpg', 32, 24), (0, 'b.png', 20, 20), (2**40, 'deep/c.jpg', 24, 32)]
ANNOTATIONS = [
    (1, 5, 3, [1.5, 2, 12.25, 9], {}), (2, 5, 7, [0, 0, 32, 24], dict(iscrowd=1)),
    (3, 5, 3, [4, 4, 0.5, 9], {}), (4, 0, 7, [2, 2, 9, 9], dict(ignore=1)),
    (5, 2**40, 3, [3, 3, 20, 20], dict(segmentation=[[3, 3, 23, 3, 23, 23]], note='é')),
]


def write_tiny_coco(folder: Path) -> tuple[Path, Path]:
    """Write it.

    Returns:
        tuple[Path, Path]: Folder of the images, annotation file.
    """
    rng = np.random.default_rng(0)
    for _, name, width, height in IMAGES:
        path = folder / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    content = dict(
        info=dict(description='tiny'),
        images=[dict(id=i, file_name=name, width=w, height=h) for i, name, w, h in IMAGES],
        annotations=[
            {**dict(id=number, image_id=image, category_id=category, bbox=box,
                    area=box[2] * box[3], iscrowd=0), **more}
            for number, image, category, box, more in ANNOTATIONS],
        categories=[dict(id=3, name='cat'), dict(id=7, name='dog')])
    file = folder / 'instances.json'
    file.write_text(json.dumps(content))
    return folder / 'images', file
