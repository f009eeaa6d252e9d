"""Facts for :mod:`mmdet_bpu.runtime` that many heads state alike, read from the built head."""
from numbers import Integral
from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError

# Arguments of mmcv.ops.nms and soft_nms with their defaults, in mmcv 2.1.0.
NMS_DEFAULTS = dict(
    nms=dict(iou_threshold=None, offset=0, score_threshold=0.0, max_num=-1),
    soft_nms=dict(iou_threshold=0.3, sigma=0.5, min_score=1e-3, method='linear', offset=0))
OLD_NAMES = dict(iou_thr='iou_threshold')  # mmcv still takes them


def common_facts(family: str, head: nn.Module, test_cfg: ConfigDict,
                 input_shape: Tuple[int, int]) -> Dict[str, Any]:
    """What every contract says: the decoder, the classes, the input and the suppression.

    Args:
        family (str): Name of a decoder of :mod:`mmdet_bpu.runtime.decoders`.
        head (nn.Module): Built stock head.
        test_cfg (ConfigDict): Its test settings.
        input_shape (tuple[int, int]): Height and width of the network's input, px.
    """
    smallest = test_cfg.get('min_bbox_size', -1)
    return dict(
        by='host',
        family=family,
        input_shape=[int(side) for side in input_shape],
        num_classes=int(head.num_classes),
        min_bbox_size=float(smallest) if smallest >= 0 else None,
        nms=nms_facts(test_cfg.get('nms')),
        max_per_img=max_per_img_fact(test_cfg))


def max_per_img_fact(test_cfg: ConfigDict) -> Optional[int]:
    """At most how many boxes an image gives; None where a config does not say.

    Raises:
        BpuError: No positive integer. mmdet takes -1 for a slice that leaves the last box out.
    """
    most = test_cfg.get('max_per_img')
    if most is not None and not is_count(most):
        raise BpuError(f'field model.test_cfg.max_per_img: expected a positive integer, found '
                       f'{most!r}')
    return None if most is None else int(most)


def is_count(value: Any) -> bool:
    """Whether it is a positive integer."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


def too_few_positions(model: nn.Module, image: Tensor, setting: str) -> Optional[str]:
    """Why a head of heat maps, which are as large as its last feature map, cannot decode, or None.

    Args:
        model (nn.Module): A detector.
        image (Tensor): (N, C, H, W), perhaps on torch's meta device.
        setting (str): Of the test settings: how many of the highest values are taken.
    """
    most = (model.bbox_head.test_cfg or {}).get(setting)
    if not is_count(most):
        raise BpuError(f'field model.test_cfg.{setting}: expected a positive integer, found '
                       f'{most!r}')
    level = model.extract_feat(image)[-1]
    values = model.bbox_head.num_classes * level.shape[-2] * level.shape[-1]
    if values >= most:
        return None
    return (f'expected (height, width) for which the heat maps have at least as many values as '
            f'model.test_cfg.{setting} = {most}, found {tuple(image.shape[-2:])} with {values}; '
            f'give a larger input, or a smaller {setting}')


def nms_facts(nms: ConfigDict) -> Dict[str, Any]:
    """The suppression of a test configuration with all its options; None if it has none.

    Raises:
        BpuError: It is of a type or has an option that the decoders do not know.
    """
    if nms is None:
        return None
    given = {OLD_NAMES.get(name, name): value for name, value in nms.items()}
    kind = given.pop('type', 'nms')
    if kind not in NMS_DEFAULTS:
        raise BpuError(f'test_cfg.nms.type: expected nms or soft_nms, found {kind!r}')
    options = dict(NMS_DEFAULTS[kind], class_agnostic=False, split_thr=10000)
    unknown = sorted(set(given) - set(options))
    if unknown:
        raise BpuError(f'test_cfg.nms: expected options of mmcv\'s {kind}, found '
                       f'{", ".join(unknown)}')
    options.update(given)
    if options['iou_threshold'] is None:
        raise BpuError('test_cfg.nms.iou_threshold: expected a number, found none')
    return dict(type=kind, **options)


def scoring_facts(head: nn.Module, test_cfg: ConfigDict) -> Dict[str, Any]:
    """Activation of the scores, their threshold, and how many of a level are looked at.

    Raises:
        BpuError: The loss brings an activation of its own that is not a sigmoid or a softmax.
    """
    loss = getattr(head, 'loss_cls', None)
    if getattr(loss, 'custom_cls_channels', False) and type(loss).__name__ != 'FocalCustomLoss':
        raise BpuError(f'bbox_head.loss_cls: the scores of {type(loss).__name__} have no decoder; '
                       'expected a sigmoid or a softmax over all classes')
    return dict(activation='sigmoid' if head.use_sigmoid_cls else 'softmax',
                score_thr=float(test_cfg.get('score_thr', 0)),
                nms_pre=int(test_cfg.get('nms_pre', -1)))


def stride_facts(strides: Sequence[Any]) -> List[List[float]]:
    """Strides of levels, each one number or (across, down), as pairs in px."""
    pairs = [stride if isinstance(stride, (tuple, list)) else (stride, stride)
             for stride in strides]
    return [[_plain(side) for side in pair] for pair in pairs]


def anchor_facts(generator: Any) -> Dict[str, Any]:
    """Strides and base anchors (float32 values as they are) of an anchor generator.

    Raises:
        BpuError: It makes points, not anchors.
    """
    if not hasattr(generator, 'base_anchors'):
        raise BpuError('bbox_head.anchor_generator: expected one that makes anchors, found '
                       f'{type(generator).__name__}')
    return dict(strides=stride_facts(generator.strides),
                anchors=[base.tolist() for base in generator.base_anchors])


def point_facts(generator: Any) -> Dict[str, Any]:
    """Strides and offset (in strides) of a point generator.

    Raises:
        BpuError: It makes anchors, not points.
    """
    if not hasattr(generator, 'offset'):
        raise BpuError('bbox_head.anchor_generator: expected one that makes points, found '
                       f'{type(generator).__name__}')
    return dict(strides=stride_facts(generator.strides), point_offset=_plain(generator.offset))


def _plain(number: Any) -> float:
    """A number of Python, whole if it is whole."""
    return int(number) if float(number).is_integer() else float(number)
