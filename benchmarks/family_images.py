"""Images of the embedded digits at any size, and the batch that a stock detector takes them as."""
from typing import NamedTuple, Sequence

import cv2
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import mmdet_bpu  # noqa: F401  (lets mmdet be imported beside mmcv-lite)
from mmdet.structures import DetDataSample
from mmdet_bpu.datasets.digits import compose_image, digit_pools

# Of one picture of the digits set in an image, px (both sides). Small ones make images of many
# backgrounds, which differ more inside than from each other: what is fitted to some fits others.
TILE = 80


class Batch(NamedTuple):
    """What mmdet's ``forward`` takes."""
    inputs: Tensor  # (N, C, H, W), normalized
    samples: list[DetDataSample]

    @property
    def metas(self) -> list[dict]:
        """What heads decode with."""
        return [sample.metainfo for sample in self.samples]


def digit_images(count: int, shape: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    """Paint images of digits: pictures of the digits set, reduced and laid in a grid.

    Args:
        count (int): Number of images.
        shape (tuple[int, int]): Height and width, px.
        seed (int): Of the images: the same arguments give the same pixels. Defaults to 0.

    Returns:
        list[np.ndarray]: Each (H, W, 3) uint8 BGR.
    """
    digits, pool = load_digits(), digit_pools(seed)['val']
    rng = np.random.default_rng(seed)
    height, width = shape
    rows, columns = -(-height // TILE), -(-width // TILE)

    def tile() -> np.ndarray:
        return cv2.resize(compose_image(rng, pool, digits)[0], (TILE, TILE),
                          interpolation=cv2.INTER_AREA)

    def image() -> np.ndarray:
        grid = np.stack([np.stack([tile() for _ in range(columns)]) for _ in range(rows)])
        whole = grid.transpose(0, 2, 1, 3, 4).reshape(rows * TILE, columns * TILE, 3)
        return np.ascontiguousarray(whole[:height, :width])
    return [image() for _ in range(count)]


def batch_of(model: nn.Module, images: Sequence[np.ndarray]) -> Batch:
    """Put images through a detector's own data preprocessor, as if no pipeline had changed them.

    Args:
        model (nn.Module): A stock detector.
        images (Sequence[np.ndarray]): Each (H, W, 3) uint8 BGR, all of one size.

    Returns:
        Batch: Of all images. ``border`` is what center and corner heads subtract; here nothing.
    """
    samples = [DetDataSample(metainfo=dict(
        img_id=number, img_shape=image.shape[:2], ori_shape=image.shape[:2], pad_shape=image.shape,
        scale_factor=(1.0, 1.0), border=np.zeros(4, np.float32)))
        for number, image in enumerate(images)]
    inputs = [torch.from_numpy(image.transpose(2, 0, 1).copy()) for image in images]
    data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples), False)
    return Batch(data['inputs'], data['data_samples'])
