"""What an artefact says about its input and its outputs, so that a board's CPU can serve it."""
from typing import Any, Dict, List, Optional

from mmengine.config import Config

from mmdet_bpu.families.config_reading import data_preprocessor
from mmdet_bpu.families.picture_format import agreed_format, input_channels
from mmdet_bpu.families.picture_resize import per_channel, picture_resize


def preprocessing(cfg: Config) -> Dict[str, Any]:
    """Who resizes and how, the colour order, and the normalisation.

    Args:
        cfg (Config): A config with a stage, completed or not.

    Returns:
        dict: ``resize`` (see :meth:`mmdet_bpu.families.picture_resize.PictureResize.as_contract`),
        ``color_order`` of the tensor, ``mean`` and ``std`` per channel of that order, and in words
        how the integer image is made.
    """
    bpu = cfg.get('bpu') or {}
    preprocessor, channels = data_preprocessor(cfg), input_channels(cfg)
    resize = picture_resize(cfg, bpu.get('input_shape'), bpu.get('resize'))
    return dict(
        resize=resize.as_contract(),
        color_order=agreed_format(cfg, bpu.get('input_format')),
        mean=per_channel(preprocessor.get('mean') or [0.0], channels),
        std=per_channel(preprocessor.get('std') or [1.0], channels),
        by='host',
        formula='int8 = clamp(round_half_even((uint8 - mean) / std / scale), -128, 127), '
        'in float32')


def postprocessing(cfg: Config) -> Dict[str, Any]:
    """What is left for the host after the outputs: scores, top-k and boxes of a DETR head."""
    head = cfg.model.bbox_head
    test_cfg = cfg.model.get('test_cfg') or {}
    return dict(
        by='host',
        scores='sigmoid',
        num_classes=int(head.get('num_classes', 0)),
        max_per_img=int(test_cfg.get('max_per_img', 100)),
        boxes='cx, cy, w, h in [0, 1] of the resized image')


def deploy_metadata(cfg: Config, class_names: Optional[List[str]] = None) -> Dict[str, Any]:
    """Metadata of the integer module: preprocessing, post-processing, march, class names."""
    return dict(
        preprocessing=preprocessing(cfg),
        postprocessing=postprocessing(cfg),
        outputs=[dict(name='cls_scores'), dict(name='bbox_preds')],
        classes=list(class_names or []),
        march=cfg.bpu.get('march', 'nash-e'))
