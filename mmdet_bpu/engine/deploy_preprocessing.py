"""Rewrite a config's data pipelines to what the deployed model gets.

The deployed graph has one input shape and no padding mask: every picture is brought to
``bpu.input_shape``, stretched or letterboxed (:mod:`mmdet_bpu.families.picture_resize`), and the data
preprocessor pads nothing.
"""
from typing import Any, List, Optional

from mmengine.config import ConfigDict

from mmdet_bpu.families.camera_format import RECIPE, CameraFormat
from mmdet_bpu.families.config_reading import type_name
from mmdet_bpu.families.picture_format import swaps_colors
from mmdet_bpu.families.picture_resize import PictureResize
from mmdet_bpu.families.resize_reading import OWN_CAMERA, OWN_COLORS, OWN_LETTERBOX

# Transforms that give an image another size or pad it: one transform takes the place of all of them.
RESIZERS = ('Resize', 'RandomResize', 'RandomChoiceResize', 'ResizeShortestEdge', 'FixScaleResize',
            'FixShapeResize', 'Pad', OWN_LETTERBOX, OWN_CAMERA)
# They change the size too, but show the model something else; they stay, before the Resize.
CROPS = ('RandomCrop', 'RandomCenterCropPad', 'MinIoURandomCrop', 'Expand', 'RandomAffine',
         'Mosaic', 'MixUp', 'CachedMosaic', 'CachedMixUp')
# Loading and resizing in one: a board decodes its pictures in full.
REDUCED_LOADING = {'LoadResizedImageFromLMDB': 'LoadImageFromLMDB'}


def rewrite_pipeline(pipeline: List[dict], resize: PictureResize, preprocessor: dict,
                     training: bool = False) -> List[dict]:
    """One fixed resize in the place of the last transform that changes the picture's size.

    Transforms nested in wrappers such as ``RandomChoice`` are treated alike; a branch that only
    resized becomes empty, so a branch that crops still crops. In training, a letterboxed pipeline
    keeps its own sizes, crops and padding, and what comes out is made to fit the input.

    Args:
        pipeline (list[dict]): Transform configs; not changed.
        resize (PictureResize): Of the deployed input.
        preprocessor (dict): Config of the data preprocessor; tells the order of the padding.
        training (bool): Whether the pipeline trains. Defaults to False: it evaluates.

    Returns:
        list[dict]: The new pipeline. It does not change when rewritten again.
    """
    pipeline = [step for step in pipeline if type_name(step) != OWN_COLORS]
    fixed = fixed_resize(resize, preprocessor, enlarge=not training)
    if training and resize.keep_ratio:
        kept = [step for step in pipeline if type_name(step) not in (OWN_LETTERBOX, OWN_CAMERA)]
        return _inserted(kept, max(len(kept) - 1, 0), fixed)  # before the transform that packs
    names = RESIZERS if training else (*RESIZERS, 'RandomCenterCropPad')
    kept, position = [], None
    for transform in pipeline:
        changes_size = _mentions(transform, RESIZERS + CROPS)
        transform = _without(transform, names)
        if transform is not None:
            kept.append(transform if training else _as_deployed(transform))
        if changes_size:
            position = len(kept)
    if position is None:
        position = max(len(kept) - 1, 0)
    return _inserted(kept, position, fixed)


def fixed_resize(resize: PictureResize, preprocessor: dict, enlarge: bool = True) -> ConfigDict:
    """Config of the transform that brings a picture to the deployed input."""
    scale = (resize.width, resize.height)
    if resize.camera is not None:
        padded = dict(keep_ratio=True, pad_val=resize.pad_value, corner=resize.corner,
                      clip=resize.clip, enlarge=enlarge) if resize.keep_ratio else {}
        return ConfigDict(type=OWN_CAMERA, scale=scale, camera=resize.camera.camera,
                          colors=resize.colors, **padded)
    if not resize.keep_ratio:
        named = {} if resize.interpolation == 'bilinear' else \
            dict(interpolation=resize.interpolation)
        return ConfigDict(type='Resize', scale=scale, keep_ratio=False, **named)
    swapped = len(resize.pad_value) == 3 and swaps_colors(preprocessor)
    return ConfigDict(
        type=OWN_LETTERBOX, scale=scale,
        pad_val=resize.pad_value[::-1] if swapped else resize.pad_value,
        interpolation=resize.interpolation, corner=resize.corner, clip=resize.clip,
        enlarge=enlarge)


def rewrite_dataset(dataset: Any, resize: PictureResize, preprocessor: dict,
                    training: bool = False) -> None:
    """Rewrite, in place, every pipeline of a dataset config, wrapped datasets included.

    Where a wrapper has a pipeline of its own (``MultiImageMixDataset``), the shape is fixed there
    and the inner pipelines stay.
    """
    if isinstance(dataset, (list, tuple)):
        for item in dataset:
            rewrite_dataset(item, resize, preprocessor, training)
    elif isinstance(dataset, dict):
        if dataset.get('pipeline') is not None:
            dataset['pipeline'] = rewrite_pipeline(
                dataset['pipeline'], resize, preprocessor, training)
            return
        for key in ('dataset', 'datasets'):
            if key in dataset:
                rewrite_dataset(dataset[key], resize, preprocessor, training)


def give_colors(dataset: Any, camera: CameraFormat, colors: str) -> None:
    """Give pictures of a dataset config a camera's colours at their own sizes, in place.

    Args:
        dataset (Any): Config; where a wrapper has a pipeline of its own, that one gives them.
        camera (CameraFormat): Whose.
        colors (str): See :class:`mmdet_bpu.datasets.CameraColors`.
    """
    if isinstance(dataset, (list, tuple)):
        for item in dataset:
            give_colors(item, camera, colors)
    elif isinstance(dataset, dict):
        if dataset.get('pipeline') is not None:
            dataset['pipeline'] = with_colors(dataset['pipeline'], camera, colors)
            return
        for key in ('dataset', 'datasets'):
            if key in dataset:
                give_colors(dataset[key], camera, colors)


def with_colors(pipeline: List[dict], camera: CameraFormat, colors: str) -> List[dict]:
    """A pipeline whose pictures have a camera's colours when they are packed."""
    kept = [step for step in pipeline if type_name(step) != OWN_COLORS]
    step = ConfigDict(type=OWN_COLORS, camera=camera.camera, colors=colors)
    return _inserted(kept, max(len(kept) - 1, 0), step)


def in_camera_colors(config: Any, colors: str) -> Any:
    """A copy of a config in which a camera's pictures become other colours.

    Args:
        config (Any): Of transforms, a dataset or a dataloader.
        colors (str): See :class:`mmdet_bpu.datasets.CameraResize`.
    """
    if isinstance(config, dict):
        copied = {key: in_camera_colors(value, colors) for key, value in config.items()}
        if type_name(config) == OWN_CAMERA:
            copied['colors'] = colors
        return ConfigDict(copied)
    if isinstance(config, (list, tuple)):
        return type(config)(in_camera_colors(item, colors) for item in config)
    return config


def rewrite_switched_pipelines(hooks: Optional[List[dict]], resize: PictureResize,
                               preprocessor: dict) -> None:
    """Rewrite, in place, the training pipelines that hooks switch to."""
    for hook in hooks or ():
        if hook.get('switch_pipeline') is not None:
            hook['switch_pipeline'] = rewrite_pipeline(
                hook['switch_pipeline'], resize, preprocessor, training=True)


def train_on_yuv(preprocessor: dict) -> None:
    """Let the data preprocessor centre Y, U, V by the vendor's recipe, and swap nothing.

    Args:
        preprocessor (dict): Config of a ``DetDataPreprocessor``; changed in place.
    """
    preprocessor.update(mean=[RECIPE] * 3, std=[RECIPE] * 3, bgr_to_rgb=False, rgb_to_bgr=False)


def rewrite_data_preprocessor(preprocessor: dict) -> None:
    """Let the data preprocessor pad nothing.

    Args:
        preprocessor (dict): Config of a ``DetDataPreprocessor``; changed in place.
    """
    preprocessor['pad_size_divisor'] = 1
    preprocessor.pop('batch_augments', None)


def _inserted(pipeline: List[dict], position: int, transform: dict) -> List[dict]:
    return [*pipeline[:position], transform, *pipeline[position:]]


def _as_deployed(transform: Any) -> Any:
    """A transform as the board's host does it: 8-bit pictures, decoded in full."""
    if not isinstance(transform, dict) or not type_name(transform).startswith('Load'):
        return transform
    transform = ConfigDict(transform)
    full = REDUCED_LOADING.get(type_name(transform))
    if full is not None:
        transform.pop('resize', None)
        transform['type'] = full
    if transform.get('to_float32'):
        transform['to_float32'] = False
    return transform


def _mentions(config: Any, names: tuple) -> bool:
    if isinstance(config, dict):
        return type_name(config) in names or any(_mentions(v, names) for v in config.values())
    if isinstance(config, (list, tuple)):
        return any(_mentions(item, names) for item in config)
    return False


def _without(config: Any, names: tuple) -> Any:
    """``config`` without transforms of these names at any depth; None for such a one itself."""
    if isinstance(config, dict):
        if type_name(config) in names:
            return None
        return ConfigDict({key: _without(value, names)
                           if isinstance(value, (list, tuple)) else value
                           for key, value in config.items()})
    if isinstance(config, (list, tuple)):
        items = [_without(item, names) for item in config]
        return type(config)(item for item, old in zip(items, config)
                            if item is not None or old is None)
    return config
