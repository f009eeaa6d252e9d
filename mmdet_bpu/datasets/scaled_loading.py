"""Load an image from a packed COCO data set at about the size that the next resize makes of it."""
from typing import Iterator, Optional

import cv2
import mmcv
import numpy as np
from mmcv.image.geometric import cv2_interp_codes
from mmcv.transforms import RandomChoiceResize, RandomResize
from mmdet.datasets.transforms import Resize, ResizeShortestEdge
from mmdet.registry import TRANSFORMS

from mmdet_bpu.datasets.decoding import (DIVISORS, ORIENTATIONS, SIMPLEJPEG, JpegHeader,
                                         decode_image, decode_reduced, orient, read_jpeg_header)
from mmdet_bpu.datasets.loading import LoadImageFromLMDB
from mmdet_bpu.errors import BpuError

# Transforms that choose a scale and leave the work to the ``resize_type`` that they build.
SCALE_CHOOSERS = (RandomResize, RandomChoiceResize, ResizeShortestEdge)
BACKENDS = ('cv2', SIMPLEJPEG)


@TRANSFORMS.register_module()
class LoadResizedImageFromLMDB(LoadImageFromLMDB):
    """``LoadImageFromLMDB`` and a resize in one, which decodes no larger than the resize needs.

    A JPEG image that is made smaller by two or more is decoded at 1/2, 1/4 or 1/8 of its size, the
    smallest that is not below the wanted size, then resized the rest of the way. Pixels differ a
    little from those of the two transforms, geometry does not: sizes, scale factors, boxes and
    random choices are the same. All other images are decoded in full and have the same pixels too.

    It stands in place of both transforms. In a training pipeline ``LoadAnnotations`` goes before
    it, so that boxes are resized, and what needs the image, as ``RandomFlip`` does, after it.

    Required Keys:

    - img_id
    - lmdb_path (unless ``lmdb`` is given)
    - gt_bboxes, gt_masks, gt_seg_map (optional)

    Modified Keys: those of ``LoadImageFromLMDB`` and of the resize.

    Args:
        resize (dict): Config of mmdet's ``Resize``, or of ``RandomResize``, ``RandomChoiceResize``
            or ``ResizeShortestEdge`` with ``resize_type='Resize'``.
        **kwargs: Options of ``LoadImageFromLMDB``; ``imdecode_backend`` 'cv2' or 'simplejpeg', any
            ``color_type`` but 'unchanged'.

    Raises:
        BpuError: If the resize or an option is one that cannot be had at a reduced size.
    """

    def __init__(self, resize: dict, **kwargs) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        if self.imdecode_backend not in BACKENDS:
            raise BpuError(f'{name} decodes at a reduced size: expected imdecode_backend to be one '
                           f'of {list(BACKENDS)}, found {self.imdecode_backend!r}')
        if self.color_type == 'unchanged':
            raise BpuError(f"{name}: color_type='unchanged' cannot be decoded at a reduced size; "
                           'use LoadImageFromLMDB and a resize')
        self.resize = TRANSFORMS.build(_with_deferred_decoding(name, resize))

    def _load(self, results: dict, content: memoryview) -> dict:
        header = read_jpeg_header(content)
        orientation = _orientation(header, self.color_type)
        if orientation is None:
            results = super()._load(results, content)
        else:
            image = DeferredImage(content, header, orientation, self)
            results.update(img=image, img_shape=image.shape, ori_shape=image.shape)
        return self.resize(results)

    def __iter__(self) -> Iterator:
        # mmcv's cache_random_params looks for random transforms in what can be iterated over.
        return iter((self.resize, ))

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, resize={self.resize})'


class DeferredImage:
    """Stands for an image in a sample until a resize asks for its pixels.

    Args:
        content (memoryview): The JPEG file; must outlive this object.
        header (JpegHeader): Its header.
        orientation (int): Exif orientation to apply, 1 to 8.
        options (LoadImageFromLMDB): How to decode.
    """

    def __init__(self, content: memoryview, header: JpegHeader, orientation: int,
                 options: LoadImageFromLMDB) -> None:
        self._content = content
        self._header = header
        self._orientation = orientation
        self._options = options

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)`` of the image in full and upright, in px."""
        return self._upright((self._header.height, self._header.width))

    def decode(self) -> np.ndarray:
        """The image in full, as ``LoadImageFromLMDB`` gives it."""
        return self._typed(decode_image(self._content, self._options.color_type,
                                        self._options.imdecode_backend))

    def resized(self, size: tuple[int, int], interpolation: str) -> Optional[np.ndarray]:
        """The image at ``size``, by way of the smallest reduced size that is not below it.

        Args:
            size (tuple[int, int]): Wanted ``(W, H)`` of the upright image, in px.
            interpolation (str): One of mmcv's names for OpenCV.

        Returns:
            ndarray | None: ``(H, W[, 3])``; None if only the full size is large enough.
        """
        height, width = self._upright(size[::-1])
        divisor = max((d for d in DIVISORS if height * d <= self._header.height
                       and width * d <= self._header.width), default=None)
        if divisor is None:
            return None
        image = self._typed(decode_reduced(self._content, self._header, divisor,
                                           self._options.color_type,
                                           self._options.imdecode_backend))
        # The reduced image ends on a whole pixel, which may lie beyond the image's border. Given
        # the exact factors, OpenCV maps the content as it would the full image, at most one pixel
        # further than wanted.
        image = cv2.resize(image, None, fx=width * divisor / self._header.width,
                           fy=height * divisor / self._header.height,
                           interpolation=cv2_interp_codes[interpolation])
        return orient(np.ascontiguousarray(image[:height, :width]), self._orientation)

    def _upright(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns as stored from upright ones, or the reverse."""
        transposed, _ = ORIENTATIONS[self._orientation]
        return shape[::-1] if transposed else shape

    def _typed(self, image: np.ndarray) -> np.ndarray:
        return image.astype(np.float32) if self._options.to_float32 else image


class _DeferredResize(Resize):
    """mmdet's ``Resize``, which takes a :class:`DeferredImage` as well."""

    def _resize_img(self, results: dict) -> None:
        image = results['img']
        if isinstance(image, DeferredImage):
            height, width = image.shape
            size = results['scale']
            if self.keep_ratio:
                size = mmcv.rescale_size((width, height), size)
            resized = image.resized(size, self.interpolation)
            if resized is not None:
                results.update(img=resized, img_shape=resized.shape[:2],
                               scale_factor=(size[0] / width, size[1] / height),
                               keep_ratio=self.keep_ratio)
                return
            results['img'] = image.decode()
        super()._resize_img(results)


def _orientation(header: Optional[JpegHeader], color_type: str) -> Optional[int]:
    """The orientation to apply; None if the image has to be decoded in full to know its size."""
    if header is None or color_type.endswith('ignore_orientation'):
        return header and 1
    return header.orientation()


def _with_deferred_decoding(owner: str, resize: dict) -> dict:
    """The config with :class:`_DeferredResize` in place of ``Resize``."""
    supported = [kind.__name__ for kind in (Resize, *SCALE_CHOOSERS)]
    if not isinstance(resize, dict) or 'type' not in resize:
        raise BpuError(f'{owner}: expected resize to be the config of one of {supported}, found '
                       f'{resize!r}')
    kind = _transform_class(resize['type'])
    inner = _transform_class(resize.get('resize_type', Resize)) if kind in SCALE_CHOOSERS else kind
    if inner is not Resize:
        raise BpuError(f"{owner}: expected resize to be one of {supported} of mmdet, with "
                       f"resize_type='Resize', found {resize}; use LoadImageFromLMDB and this "
                       'transform after it')
    if resize.get('backend', 'cv2') != 'cv2':
        raise BpuError(f"{owner}: expected a resize with backend='cv2', found "
                       f"{resize['backend']!r}")
    key = 'resize_type' if kind in SCALE_CHOOSERS else 'type'
    return {**resize, 'type': kind, key: _DeferredResize}


def _transform_class(kind: str | type) -> Optional[type]:
    return TRANSFORMS.get(kind) if isinstance(kind, str) else kind
