"""Whether the board's host does to pictures what the config's test pipeline does.

What evaluates a detector is its test pipeline; what a board runs is the contract. Found out by
running both on noise, where nothing that moves or changes a pixel goes unseen.
"""
from typing import Any, Dict, List, Optional

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from torch import nn

from mmdet_bpu.engine.artifact_detector import quantize_image
from mmdet_bpu.engine.config_errors import refused_config
from mmdet_bpu.engine.foreign_errors import in_one_line
from mmdet_bpu.engine.predictors import picture_pipeline
from mmdet_bpu.engine.seeded_data import seeded_generators
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.config_reading import data_preprocessor, test_pipeline, type_name
from mmdet_bpu.families.contract import converted_by_host
from mmdet_bpu.runtime.input_stage import int8_image

SHAPES = ((37, 53), (61, 29))  # (height, width) of pictures, px
LEVELS = 127
# Both round the same float32 numbers; a padding that is no whole number may round once more.
MOST_APART = 1
# They prepare the picture, or do what the contract says.
EXPECTED = ('LoadImageFromNDArray', 'Resize', 'Letterbox', 'CameraResize', 'PackDetInputs')


def require_promised_input(cfg: Config, preprocessing: Dict[str, Any]) -> None:
    """Compare the network's input of both on noise.

    Args:
        cfg (Config): Completed config; one without a test pipeline promises nothing else.
        preprocessing (dict): Of the contract.

    Raises:
        BpuError: They differ; the message names the transform, if it is one.
    """
    if test_pipeline(cfg) is None:
        return
    steps = picture_pipeline(cfg)
    reason = _difference(cfg, steps, preprocessing)
    if reason is None:
        return
    suspects = [step for step in steps if type_name(step) not in EXPECTED]
    guilty = [step for step in suspects if _difference(
        cfg, [other for other in steps if other is not step], preprocessing) is None]
    names = ', '.join(type_name(step) for step in guilty or suspects)
    raise BpuError(
        f'field test_dataloader.dataset.pipeline: expected transforms that leave the pixels to the '
        f"contract's resize and normalisation, found {names or 'others'} ({reason}); a board's host "
        'does not do that, so what is evaluated would not be what is deployed: remove it from the '
        'test pipeline')


def _difference(cfg: Config, steps: List[dict], preprocessing: Dict[str, Any]) -> Optional[str]:
    """How the inputs differ, in words; None if they do not."""
    mean, std = np.float64(preprocessing['mean']), np.float64(preprocessing['std'])
    scale = float(np.max(np.maximum(np.abs(mean), np.abs(255 - mean)) / std) / LEVELS)
    # The integers behind a camera's conversion, whoever does it.
    preprocessing = converted_by_host(dict(preprocessing=preprocessing))['preprocessing']
    contract = dict(preprocessing=preprocessing, inputs=[dict(scale=scale)])
    for seed, shape in enumerate(SHAPES):
        with seeded_generators(seed):
            noise = np.random.randint(0, 256, (*shape, len(mean)), np.uint8)
            picture = noise[..., 0] if preprocessing['color_order'] == 'gray' else noise
            with refused_config(cfg):
                transforms = [TRANSFORMS.build(step) for step in steps]
                preprocessor = MODELS.build(dict(data_preprocessor(cfg)))
            try:
                normalised = _normalised(transforms, preprocessor, picture.copy())
                found = quantize_image(normalised, scale).numpy()
            except Exception as error:  # a transform of a user fails in its own way
                return f'it fails on a picture: {in_one_line(error)}'
        promised = int8_image(picture, contract)
        if found.shape != promised.shape:
            return f'an input of {found.shape[1:3]} px, promised are {promised.shape[1:3]}'
        apart = np.abs(found.astype(int) - promised)
        if apart.max() > MOST_APART:
            return (f'{np.mean(apart > MOST_APART):.1%} of the input differ, by up to '
                    f'{apart.max()} of 255 levels')
    return None


def _normalised(transforms: List[Any], preprocessor: nn.Module,
                picture: np.ndarray) -> torch.Tensor:
    """(C, H, W) float32, as the detector is given it in evaluation."""
    for transform in transforms:
        _let_happen(transform)
    data = Compose(transforms)(dict(img=picture, img_id=0))
    given = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
    return preprocessor(given, training=False)['inputs'][0]


def _let_happen(transform: Any) -> None:
    """What happens to some pictures, happens to this one."""
    chance = getattr(transform, 'prob', None)
    if isinstance(chance, (list, tuple)) and sum(chance) > 0:
        transform.prob = [share / sum(chance) for share in chance]
    elif isinstance(chance, float) and chance > 0:
        transform.prob = 1.0
