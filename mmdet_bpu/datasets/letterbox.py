"""Fit pictures into the deployed input and keep their ratio."""
from typing import Any, Dict, Sequence, Tuple

import numpy as np
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import autocast_box_type

from mmdet_bpu.runtime.input_stage import picture_metas
from mmdet_bpu.runtime.picture_frame import Placement, place

SEGMENTATION_PADDING = 255  # as mmdet's Pad: a class that no loss counts


@TRANSFORMS.register_module()
class Letterbox(Resize):
    """Resize a picture so that it fits into the input, and pad the rest.

    Its place and size are those that the board's host computes
    (:mod:`mmdet_bpu.runtime.input_stage`). Padding of whole numbers keeps a uint8 picture uint8;
    other padding, as the mean, which normalisation makes exactly 0, turns it into float32.

    Required Keys:

    - img
    - gt_bboxes, gt_masks, gt_seg_map (optional)

    Modified Keys: the required ones, and

    - img_shape: (height, width) that boxes are clipped to
    - pad_shape: (height, width) of the input

    Added Keys:

    - scale
    - scale_factor
    - keep_ratio
    - homography_matrix
    - border: rows and columns of the input where the picture begins and ends (top, bottom, left,
      right), which mmdet's keypoint heads subtract

    Args:
        scale (tuple[int, int]): (width, height) of the input, px.
        pad_val (Sequence[float]): Value of the padding per channel of the picture as it is read
            (blue first).
        interpolation (str): As mmcv and cv2 name it. Defaults to 'bilinear'.
        corner (str): Where the picture lies: 'top_left' or 'center'. Defaults to 'top_left'.
        clip (str): What boxes are clipped to: the 'picture', or the whole 'input', padding included,
            for detectors that take the difference of the two for a mask. Defaults to 'picture'.
        enlarge (bool): Whether a picture smaller than the input is made larger, as when deployed;
            without, it is only padded, so that a training pipeline's own sizes stay. Defaults to
            True.
    """

    def __init__(self,
                 scale: Tuple[int, int],
                 pad_val: Sequence[float],
                 interpolation: str = 'bilinear',
                 corner: str = 'top_left',
                 clip: str = 'picture',
                 enlarge: bool = True) -> None:
        super().__init__(scale=tuple(scale), keep_ratio=False, interpolation=interpolation)
        self.pad_val = [float(value) for value in pad_val]
        self.corner, self.clip, self.enlarge = corner, clip, enlarge

    @autocast_box_type()
    def transform(self, results: dict) -> dict:
        """Resize, pad, and take boxes, masks and segmentation along."""
        height, width = results['img'].shape[:2]
        rule = self.rule()
        placed, metas = place(rule, width, height), picture_metas(rule, width, height)
        results['scale'] = (placed.width, placed.height)
        self._place_img(results, placed)
        if results['scale'] != (width, height):
            self._resize_bboxes(results)
            self._resize_masks(results)
            self._resize_seg(results)
            self._record_homography_matrix(results)
        self._pad(results, placed)
        results.update(img_shape=metas['img_shape'], border=np.array(metas['border'], np.float32),
                       pad_shape=results['img'].shape, keep_ratio=rule['keep_ratio'])
        results.setdefault('scale_factor', (1.0, 1.0))
        return results

    def rule(self) -> Dict[str, Any]:
        """What it does, as ``preprocessing.resize`` of a contract says it."""
        return dict(width=self.scale[0], height=self.scale[1], keep_ratio=True, corner=self.corner,
                    clip=self.clip, enlarge=self.enlarge)

    def _place_img(self, results: dict, placed: Placement) -> None:
        """The image at its new size, in the input."""
        height, width = results['img'].shape[:2]
        if results['scale'] != (width, height):
            self._resize_img(results)
        results['img'] = self._padded(results['img'], placed, self.pad_val)

    def _pad(self, results: dict, placed: Placement) -> None:
        """Put what is known of the image where ``placed`` says, in px of the input."""
        if results.get('gt_seg_map') is not None:
            results['gt_seg_map'] = self._padded(
                results['gt_seg_map'], placed, [SEGMENTATION_PADDING])
        offset = placed.left, placed.top
        if results.get('gt_bboxes') is not None and any(offset):
            results['gt_bboxes'].translate_(offset)
        if results.get('gt_masks') is not None:
            shape = self.scale[::-1]
            masks = results['gt_masks'].pad(shape)
            for distance, direction in zip(offset, ('horizontal', 'vertical')):
                masks = masks.translate(shape, distance, direction) if distance else masks
            results['gt_masks'] = masks
        if any(offset) and 'homography_matrix' in results:
            shift = np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]], np.float32)
            results['homography_matrix'] = shift @ results['homography_matrix']

    def _padded(self, image: np.ndarray, placed: Placement, values: Sequence[float]) -> np.ndarray:
        """``image`` (height, width[, channels]) in the input's size, in float32 if need be."""
        if image.shape[:2] == self.scale[::-1]:
            return image
        whole = all(value.is_integer() and 0 <= value <= 255 for value in map(float, values))
        dtype = image.dtype if whole else np.float32
        padded = np.empty((*self.scale[::-1], *image.shape[2:]), dtype)
        padded[:] = np.asarray(values, dtype) if image.ndim == 3 else values[0]
        padded[placed.top:placed.top + placed.height, placed.left:placed.left + placed.width] = image
        return padded

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(scale={self.scale}, pad_val={self.pad_val}, '
                f'interpolation={self.interpolation!r}, corner={self.corner!r}, '
                f'clip={self.clip!r}, enlarge={self.enlarge})')
