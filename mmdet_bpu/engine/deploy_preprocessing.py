"""Rewrite a config's data pipelines to what the deployed model gets.

The deployed graph has one input shape and no padding mask: every image is resized to
``bpu.input_shape`` without keeping its ratio, and the data preprocessor pads nothing.
"""
from typing import Any, List

from mmengine.config import ConfigDict

from mmdet_bpu.errors import BpuError

# Transforms that give an image another size or pad it: one Resize takes the place of all of them.
RESIZERS = ('Resize', 'RandomResize', 'RandomChoiceResize', 'ResizeShortestEdge', 'FixScaleResize',
            'FixShapeResize', 'Pad')
# They change the size too, but show the model something else; they stay, before the Resize.
CROPS = ('RandomCrop', 'RandomCenterCropPad', 'MinIoURandomCrop', 'Expand', 'RandomAffine',
         'Mosaic', 'MixUp', 'CachedMosaic', 'CachedMixUp')


def rewrite_pipeline(pipeline: List[dict], input_shape: tuple) -> List[dict]:
    """One fixed Resize in the place of the last transform that changes the image's size.

    Transforms nested in wrappers such as ``RandomChoice`` are treated alike; a branch that only
    resized becomes empty, so a branch that crops still crops.

    Args:
        pipeline (list[dict]): Transform configs; not changed.
        input_shape (tuple): (height, width) in px.

    Returns:
        list[dict]: The new pipeline. It does not change when rewritten again.
    """
    height, width = input_shape
    resize = ConfigDict(type='Resize', scale=(width, height), keep_ratio=False)
    kept, position = [], None
    for transform in pipeline:
        changes_size = _mentions(transform, RESIZERS + CROPS)
        transform = _without_resizers(transform)
        if transform is not None:
            kept.append(transform)
        if changes_size:
            position = len(kept)
    if position is None:
        position = max(len(kept) - 1, 0)  # before the transform that packs
    return kept[:position] + [resize] + kept[position:]


def rewrite_dataset(dataset: Any, input_shape: tuple) -> None:
    """Rewrite, in place, every pipeline of a dataset config, wrapped datasets included.

    Where a wrapper has a pipeline of its own (``MultiImageMixDataset``), the shape is fixed there
    and the inner pipelines stay.
    """
    if isinstance(dataset, (list, tuple)):
        for item in dataset:
            rewrite_dataset(item, input_shape)
    elif isinstance(dataset, dict):
        if dataset.get('pipeline') is not None:
            dataset['pipeline'] = rewrite_pipeline(dataset['pipeline'], input_shape)
            return
        for key in ('dataset', 'datasets'):
            if key in dataset:
                rewrite_dataset(dataset[key], input_shape)


def rewrite_data_preprocessor(preprocessor: dict, input_format: str) -> None:
    """Let the data preprocessor pad nothing, and check that it agrees on the colour order.

    Args:
        preprocessor (dict): Config of a ``DetDataPreprocessor``; changed in place.
        input_format (str): ``'rgb'`` or ``'bgr'``, what the deployed model is fed.

    Raises:
        BpuError: The model is trained on the other colour order.
    """
    # mmdet reads images as BGR.
    gives = 'rgb' if preprocessor.get('bgr_to_rgb') else 'bgr'
    if gives != input_format:
        raise BpuError(f'field bpu.input_format: expected {gives!r}, the order that '
                       'model.data_preprocessor gives the model '
                       f'(bgr_to_rgb={preprocessor.get("bgr_to_rgb", False)}), found '
                       f'{input_format!r}')
    preprocessor['pad_size_divisor'] = 1
    preprocessor.pop('batch_augments', None)


def _mentions(config: Any, names: tuple) -> bool:
    if isinstance(config, dict):
        return _type_name(config) in names or any(_mentions(v, names) for v in config.values())
    if isinstance(config, (list, tuple)):
        return any(_mentions(item, names) for item in config)
    return False


def _without_resizers(config: Any) -> Any:
    """``config`` without resizing transforms at any depth; None for such a transform itself."""
    if isinstance(config, dict):
        if _type_name(config) in RESIZERS:
            return None
        return ConfigDict({key: _without_resizers(value)
                           if isinstance(value, (list, tuple)) else value
                           for key, value in config.items()})
    if isinstance(config, (list, tuple)):
        items = [_without_resizers(item) for item in config]
        return type(config)(item for item, old in zip(items, config)
                            if item is not None or old is None)
    return config


def _type_name(config: dict) -> str:
    """Last part of a transform's type: ``mmdet.Resize`` and the class itself are ``Resize``."""
    kind = config.get('type', '')
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2]
