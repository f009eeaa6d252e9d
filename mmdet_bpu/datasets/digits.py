"""An embedded detection set: real handwritten digits pasted on painted backgrounds.

The digits are the 1,797 scans of the UCI "Optical Recognition of Handwritten Digits" test set that
scikit-learn ships (``sklearn.datasets.load_digits``, 8 x 8 pixels, 17 grey levels), so a demo
needs no download. The result is an ordinary COCO detection set::

    out_dir/
      train/000000.jpg ...            160 x 160 px, JPEG quality 95
      val/000000.jpg ...
      annotations/train.json val.json
      digits.json                     what it was made from

Every image has its own random generator, seeded by (seed, split, image index): the same arguments
give the same bytes, and a smaller set is a prefix of a larger one.
"""
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

from mmdet_bpu.errors import BpuError

IMAGE_SIZE = 160  # px, both sides
DIGITS_PER_IMAGE = (2, 6)  # least, most
DIGIT_SIZE = (20, 64)  # px, longer side of the box: least, most
MAX_OVERLAP = 0.1  # shared area over the smaller box's area
INK = (170, 255)  # grey levels of each channel: light ink on a darker ground, as in the scans
GROUND = (0, 140)
MAX_NOISE = 12  # grey levels, standard deviation
PATTERN_CONTRAST = 70  # grey levels, so that a pattern does not look like ink
JPEG_QUALITY = 95
VAL_SHARE = 0.2  # share of each class's scans kept for validation
SPLITS = ('train', 'val')
CLASSES = tuple(str(digit) for digit in range(10))
FORMAT_VERSION = 2  # raise it whenever the same arguments would give other bytes
PLACEMENT_TRIES = 40


def make_digits(out_dir, seed: int = 0, num_train: int = 1500, num_val: int = 200) -> Path:
    """Write the digits detection set, or say that it is already there.

    The folder appears under its name only when it is complete.

    Args:
        out_dir (str | Path): Folder to make.
        seed (int): Seed of the images and of the split of the scans. Defaults to 0.
        num_train (int): Number of training images. Defaults to 1500.
        num_val (int): Number of validation images. Defaults to 200.

    Returns:
        Path: ``out_dir``.

    Raises:
        BpuError: If a count is not positive, the seed is negative, or ``out_dir`` holds
            something else.
    """
    out_dir = Path(out_dir)
    for name, value, least in (('seed', seed, 0), ('num_train', num_train, 1),
                               ('num_val', num_val, 1)):
        if value < least:
            raise BpuError(f'digits: {name} must be at least {least}, found {value}')
    description = dict(
        format_version=FORMAT_VERSION, seed=seed, num_train=num_train, num_val=num_val)
    if out_dir.exists() and not (out_dir.is_dir() and not any(out_dir.iterdir())):
        _check_existing(out_dir, description)
        print(f'digits: reusing {out_dir} ({num_train} train, {num_val} val images)')
        return out_dir

    partial = out_dir.with_name(out_dir.name + '.partial')
    if partial.exists():  # left by a run that was killed
        shutil.rmtree(partial)
    (partial / 'annotations').mkdir(parents=True)
    pools = digit_pools(seed)
    for split, count in zip(SPLITS, (num_train, num_val)):
        _write_split(partial, split, pools[split], seed, count)
    (partial / 'digits.json').write_text(json.dumps(description, indent=1))
    partial.replace(out_dir)
    print(f'digits: made {out_dir} ({num_train} train, {num_val} val images)')
    return out_dir


def digit_pools(seed: int) -> dict[str, np.ndarray]:
    """Split the scans into disjoint pools, each class in the same proportion.

    Returns:
        dict[str, np.ndarray]: For 'train' and 'val', the sorted indices into ``load_digits()``.
    """
    target = load_digits().target
    rng = np.random.default_rng(seed)
    pools = {split: [] for split in SPLITS}
    for label in range(len(CLASSES)):
        scans = rng.permutation(np.flatnonzero(target == label))
        num_val = round(VAL_SHARE * len(scans))
        pools['val'].append(scans[:num_val])
        pools['train'].append(scans[num_val:])
    return {split: np.sort(np.concatenate(parts)) for split, parts in pools.items()}


def compose_image(rng: np.random.Generator, pool: np.ndarray, digits,
                  size: tuple[int, int] = (IMAGE_SIZE, IMAGE_SIZE)):
    """Paint one image.

    Args:
        rng (np.random.Generator): Where every choice is drawn from.
        pool (np.ndarray): Indices of the scans that may be used.
        digits (Bunch): The result of ``load_digits()``.
        size (tuple[int, int]): Height and width in px, neither below the largest digit's. Defaults
            to those of the set.

    Returns:
        tuple: The image and the same image without its digits, both (H, W, 3) uint8 BGR, and a
        list of (scan index, box), each box (x, y, w, h) in px: every pixel that the digit
        changes lies inside, and each side of the box touches one.
    """
    background = paint_background(rng, size)
    image = background.astype(np.float32)
    placed = []
    wanted = rng.integers(DIGITS_PER_IMAGE[0], DIGITS_PER_IMAGE[1] + 1)
    tries = 0
    while len(placed) < DIGITS_PER_IMAGE[0] or (len(placed) < wanted and tries < PLACEMENT_TRIES):
        tries += 1
        scan = int(rng.choice(pool))
        alpha = render_digit(
            digits.images[scan], rng.integers(DIGIT_SIZE[0], DIGIT_SIZE[1] + 1),
            rng.uniform(0.85, 1.15))
        height, width = alpha.shape
        x = int(rng.integers(0, size[1] - width + 1))
        y = int(rng.integers(0, size[0] - height + 1))
        box = (x, y, width, height)
        if any(overlap(box, other) > MAX_OVERLAP for _, other in placed):
            continue
        patch = image[y:y + height, x:x + width]
        ink = rng.uniform(*INK, size=3)
        patch += alpha[..., None] * (ink - patch)
        placed.append((scan, box))
    return np.rint(image).astype(np.uint8), background, placed


def render_digit(scan: np.ndarray, size: int, aspect: float) -> np.ndarray:
    """Enlarge one 8 x 8 scan to an opacity mask that fills its rectangle.

    Args:
        scan (np.ndarray): (8, 8), 0 to 16.
        size (int): Longer side of the result in px, at most (a blurred tip may vanish).
        aspect (float): Factor on width over height.

    Returns:
        np.ndarray: (h, w) float32 in [0, 1]; the first and last row and column hold a pixel
        of at least 0.4, so that the mask's rectangle is the tight box of what one sees.
    """
    ink = np.pad(scan / scan.max(), 1).astype(np.float32)
    ink = _trim(cv2.resize(ink, None, fx=16, fy=16, interpolation=cv2.INTER_CUBIC), 0.4)
    height, width = ink.shape[0], ink.shape[1] * aspect
    scale = size / max(height, width)
    target = (max(round(width * scale), 1), max(round(height * scale), 1))
    ink = cv2.resize(ink, target, interpolation=cv2.INTER_AREA)
    alpha = np.clip((ink - 0.3) / 0.2, 0, 1)
    alpha[alpha < 0.4] = 0
    return _trim(alpha, 0.4)


def paint_background(rng: np.random.Generator,
                     size: tuple[int, int] = (IMAGE_SIZE, IMAGE_SIZE)) -> np.ndarray:
    """Paint a (H, W, 3) uint8 background: two colours mixed by a random pattern, and noise."""
    y, x = np.mgrid[0:size[0], 0:size[1]] / IMAGE_SIZE
    angle, frequency = rng.uniform(0, 2 * np.pi), rng.uniform(2, 12)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    kind = rng.integers(6)
    if kind == 0:  # flat
        mix = np.zeros_like(x)
    elif kind == 1:  # linear gradient
        mix = (along - along.min()) / np.ptp(along)
    elif kind == 2:  # round gradient
        mix = np.hypot(x - rng.uniform(), y - rng.uniform())
    elif kind == 3:  # clouds
        cells = int(rng.integers(3, 24))
        mix = cv2.resize(rng.uniform(size=(cells, cells)), x.shape[::-1],
                         interpolation=cv2.INTER_CUBIC)
    elif kind == 4:  # waves
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * frequency * along)
    else:  # chequers
        mix = (np.floor(frequency * along) + np.floor(frequency * across)) % 2
    colours = rng.uniform(*GROUND, size=(2, 3))
    if kind >= 3:
        change = rng.uniform(-PATTERN_CONTRAST, PATTERN_CONTRAST, size=3)
        colours[1] = np.clip(colours[0] + change, *GROUND)
    image = colours[0] + np.clip(mix, 0, 1)[..., None] * (colours[1] - colours[0])
    image += rng.normal(0, rng.uniform(0, MAX_NOISE), size=image.shape)
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


def overlap(one: tuple, other: tuple) -> float:
    """Shared area of two boxes (x, y, w, h) over the area of the smaller one."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0) / min(one[2] * one[3], other[2] * other[3])


def _trim(mask: np.ndarray, threshold: float) -> np.ndarray:
    rows = np.flatnonzero((mask >= threshold).any(axis=1))
    columns = np.flatnonzero((mask >= threshold).any(axis=0))
    return mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def _write_split(root: Path, split: str, pool: np.ndarray, seed: int, count: int) -> None:
    digits = load_digits()
    (root / split).mkdir()
    images, annotations = [], []
    for index in tqdm(range(count), desc=f'digits: {split}', unit='image', mininterval=1):
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        image, _, placed = compose_image(rng, pool, digits)
        name = f'{index:06d}.jpg'
        _, encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        (root / split / name).write_bytes(encoded.tobytes())
        images.append(dict(id=index, file_name=name, height=IMAGE_SIZE, width=IMAGE_SIZE))
        for scan, box in placed:
            annotations.append(dict(
                id=len(annotations) + 1, image_id=index,
                category_id=int(digits.target[scan]) + 1, bbox=list(box),
                area=box[2] * box[3], iscrowd=0, scan=scan))
    coco = dict(
        info=dict(description='handwritten digits on painted backgrounds', seed=seed),
        images=images, annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)])
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(coco))


def _check_existing(out_dir: Path, description: dict) -> None:
    manifest = out_dir / 'digits.json'
    if not manifest.is_file():
        raise BpuError(f'digits: {out_dir} exists and holds no digits.json, so it is not a digits '
                       'set: give another folder, or remove this one')
    try:
        found = json.loads(manifest.read_text())
    except ValueError as error:
        raise BpuError(f'digits: {manifest} is not readable JSON ({error}): remove {out_dir} and '
                       'run again') from None
    if found != description:
        raise BpuError(f'digits: {out_dir} was made with {found}, wanted {description}: give '
                       'another folder, or remove this one')
    for split in SPLITS:
        expected, present = description[f'num_{split}'], len(list((out_dir / split).glob('*.jpg')))
        if present != expected:
            raise BpuError(f'digits: {out_dir / split} holds {present} images, expected '
                           f'{expected}: remove {out_dir} and run again')
