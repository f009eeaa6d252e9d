"""What an artefact says about its input and its outputs, so that a board's CPU can serve it."""
from typing import Any, Dict, List, Optional

from mmengine.config import Config


def preprocessing(cfg: Config) -> Dict[str, Any]:
    """Who resizes, the colour order, and the normalisation, from a completed config.

    Returns:
        dict: ``resize`` (height, width in px, no kept ratio, bilinear), ``color_order`` of the
        tensor, ``mean`` and ``std`` per channel of that order, and in words how the integer
        image is made.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    height, width = cfg.bpu['input_shape'] if 'input_shape' in cfg.bpu else (800, 1333)
    channels = len(preprocessor.get('mean') or [0.0] * 3)
    return dict(
        resize=dict(height=int(height), width=int(width), keep_ratio=False,
                    interpolation='bilinear', by='host'),
        color_order='rgb' if preprocessor.get('bgr_to_rgb') else 'bgr',
        mean=[float(v) for v in preprocessor.get('mean') or [0.0] * channels],
        std=[float(v) for v in preprocessor.get('std') or [1.0] * channels],
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
