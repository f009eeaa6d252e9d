"""Stock heads of mmdet with raw outputs of the right shapes: one case per kind of head and setting.

Outputs are random, such that some thousands of scores pass the threshold. No backbone is built.
"""
import copy
import functools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

import mmdet_bpu.openmmlab  # noqa: F401  (stands in for mmcv._ext before mmdet is imported)

SHAPE = (96, 160)  # px
CLASSES = 8
Tree = List[Any]


@dataclass(frozen=True)
class Case:
    """A stock config and how its head's outputs look.

    Attributes:
        config (str): Below mmdet's configs.
        outputs (Callable): (head, input shape, generator) -> raw outputs, nested as by its forward.
        shape (tuple[int, int]): Height and width of the input, px.
        head (dict): What is changed in the head's config.
        dropped (tuple[str, ...]): What is left out of the head's config.
        test_cfg (dict): What is changed in the test settings.
    """
    config: str
    outputs: Callable[[nn.Module, Tuple[int, int], torch.Generator], Tree]
    shape: Tuple[int, int] = SHAPE
    head: Dict[str, Any] = field(default_factory=dict)
    dropped: Tuple[str, ...] = ()
    test_cfg: Dict[str, Any] = field(default_factory=dict)


def _maps(channels: List[int], sizes: List[Tuple[int, int]], generator: torch.Generator,
          mean: float = 0.0, std: float = 0.5) -> List[Tensor]:
    return [torch.randn(1, count, *size, generator=generator) * std + mean
            for count, size in zip(channels, sizes)]


def _sizes(strides, shape) -> List[Tuple[int, int]]:
    steps = [stride[0] if isinstance(stride, (tuple, list)) else stride for stride in strides]
    return [(math.ceil(shape[0] / step), math.ceil(shape[1] / step)) for step in steps]


def dense(box_channels: int = 4, factor: bool = False, boxes: Dict[str, float] = {},
          scores: Dict[str, float] = {}, probabilities: bool = False):
    """Outputs of a head over levels: scores, boxes and perhaps a score factor."""

    def outputs(head, shape, generator):
        generators = getattr(head, 'prior_generator', None) or head.square_anchor_generator
        sizes = _sizes(generators.strides, shape)
        priors = generators.num_base_priors
        wide = [count * head.cls_out_channels for count in priors]
        tree = [_maps(wide, sizes, generator, **{'mean': -4.5, 'std': 1.5, **scores}),
                _maps([count * box_channels for count in priors], sizes, generator, **boxes)]
        if probabilities:
            tree[0] = [level.sigmoid() for level in tree[0]]
        if factor:
            tree.append(_maps(priors, sizes, generator, std=1.5))
        return tree

    return outputs


def distances(**kwargs):
    """Outputs of a head that gives distances in px."""
    raw = dense(boxes=dict(mean=20.0, std=12.0), **kwargs)

    def outputs(head, shape, generator):
        tree = raw(head, shape, generator)
        tree[1] = [level.clamp(min=0) for level in tree[1]]
        return tree

    return outputs


def ordered_boxes(in_strides: float, **kwargs):
    """Outputs of a head that gives boxes in strides of a level, corners in order."""
    raw = dense(**kwargs)

    def outputs(head, shape, generator):
        tree = raw(head, shape, generator)
        tree[1] = [torch.cat([level[:, :2], level[:, :2] + level[:, 2:].abs() * in_strides], 1)
                   for level in tree[1]]
        return tree

    return outputs


def ssd(head, shape, generator):
    sizes = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
    priors = head.num_base_priors
    return [_maps([count * head.cls_out_channels for count in priors], sizes, generator, std=2.0),
            _maps([count * 4 for count in priors], sizes, generator)]


def yolo_v3(head, shape, generator):
    maps = _maps([head.num_base_priors * head.num_attrib] * 3, _sizes(head.featmap_strides, shape),
                 generator, std=0.7)
    for level in maps:
        attributes = level.view(head.num_base_priors, head.num_attrib, *level.shape[2:])
        attributes[:, 2:4] += 1.5  # logarithms of sizes: boxes that overlap
    return [maps]


def yolox(head, shape, generator):
    sizes = _sizes(head.strides, shape)
    return [_maps([head.num_classes] * 3, sizes, generator, mean=-3.0, std=1.5),
            _maps([4] * 3, sizes, generator, mean=1.0), _maps([1] * 3, sizes, generator, std=2.0)]


def guided(head, shape, generator):
    sizes = _sizes(head.square_anchor_generator.strides, shape)
    return [_maps([channels] * len(sizes), sizes, generator, mean=mean, std=std)
            for channels, mean, std in ((head.num_classes, -4.5, 1.5), (4, 0.0, 0.5), (2, 0.0, 0.5),
                                        (1, -4.0, 2.0))]


def buckets(head, shape, generator):
    scores, logits = dense(box_channels=4 * head.side_num, boxes=dict(std=2.0))(
        head, shape, generator)
    sizes = [level.shape[2:] for level in logits]
    offsets = _maps([4 * head.side_num] * len(sizes), sizes, generator)
    return [scores, [list(pair) for pair in zip(logits, offsets)]]


def center_maps(head, shape, generator):
    size = [(shape[0] // 4, shape[1] // 4)]
    (heat, ) = _maps([head.num_classes], size, generator, mean=-4.0, std=1.5)
    (sizes, ) = _maps([2], size, generator, mean=6.0, std=3.0)
    return [[heat.sigmoid()], [sizes.abs()], [torch.rand(1, 2, *size[0], generator=generator)]]


def corner_maps(centripetal: bool):
    """Two stages; in the second the corners of some boxes stand out and know of each other."""

    def stage(head, size, generator):
        height, width = size
        count = 25
        corners = torch.rand(2, count, 2, generator=generator)
        corners = corners.sort(0)[0] * torch.tensor([width - 1, height - 1])
        cells = corners.round().long()
        labels = torch.randint(head.num_classes, (count, ), generator=generator)
        heats = _maps([head.num_classes] * 2, [size] * 2, generator, mean=-4.0, std=0.8)
        embeddings = _maps([1] * 2, [size] * 2, generator, std=0.1)
        offsets = [torch.rand(1, 2, *size, generator=generator) for _ in range(2)]
        guiding, shifts = (_maps([2] * 2, [size] * 2, generator) for _ in range(2))
        half = (corners[1] - corners[0]) / 2
        for side in range(2):
            x, y = cells[side].T
            heats[side][0, labels, y, x] = torch.rand(count, generator=generator) * 4
            embeddings[side][0, 0, y, x] = torch.arange(count) * 3.0
            noise = torch.rand(count, 2, generator=generator) * 0.2 - 0.1
            shifts[side][0, :, y, x] = (half.clamp(min=0.2).log() + noise).T
        if centripetal:
            return [*heats, *offsets, *guiding, *shifts]
        return [*heats, *embeddings, *offsets]

    def outputs(head, shape, generator):
        size = (shape[0] // 4, shape[1] // 4)
        return [list(parts) for parts in zip(*(stage(head, size, generator) for _ in range(2)))]

    return outputs


def queries(head, shape, generator):
    logits = torch.randn(1, 1, 120, head.cls_out_channels, generator=generator)
    return [logits, torch.rand(1, 1, 120, 4, generator=generator)]


PAA = dense(factor=True, scores=dict(mean=-5.0, std=1.5))
RARE = distances(scores=dict(mean=-9.0))
BOXES_5 = ordered_boxes(5.0, scores=dict(mean=-4.0, std=1.2))
CASES = {
    'retinanet': Case('retinanet/retinanet_r50_fpn_1x_coco.py', dense()),
    'retinanet-softmax': Case('retinanet/retinanet_r50_fpn_1x_coco.py',
                              dense(scores=dict(mean=0.0, std=3.0)),
                              head=dict(loss_cls=dict(_delete_=True, type='CrossEntropyLoss'))),
    'retinanet-all-kept': Case('retinanet/retinanet_r50_fpn_1x_coco.py',
                               dense(scores=dict(mean=-6.5)), test_cfg=dict(nms_pre=-1)),
    'retinanet-unclipped': Case('retinanet/retinanet_r50_fpn_1x_coco.py',
                                dense(boxes=dict(std=1.5)),
                                head=dict(bbox_coder=dict(clip_border=False))),
    'retinanet-agnostic': Case('retinanet/retinanet_r50_fpn_1x_coco.py', dense(), test_cfg=dict(
        nms=dict(type='nms', iou_thr=0.4, class_agnostic=True))),
    'retinanet-soft': Case('retinanet/retinanet_r50_fpn_1x_coco.py',
                           dense(scores=dict(mean=-5.5, std=1.0)), test_cfg=dict(
                               nms=dict(type='soft_nms', method='gaussian', min_score=0.05))),
    'retinanet-v1': Case('legacy_1.x/retinanet_r50-caffe_fpn_1x_coco_v1.py',
                         dense()),
    'retinanet-sepbn': Case('efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py', dense()),
    'retinanet-pisa': Case('pisa/retinanet-r50_fpn_pisa_1x_coco.py', dense()),
    'free-anchor': Case('free_anchor/freeanchor_r50_fpn_1x_coco.py', dense()),
    'atss': Case('atss/atss_r50_fpn_1x_coco.py', dense(factor=True)),
    'ddod': Case('ddod/ddod_r50_fpn_1x_coco.py', dense(factor=True)),
    'fsaf': Case('fsaf/fsaf_r50_fpn_1x_coco.py', dense(boxes=dict(mean=0.2, std=0.1))),
    'yolof': Case('yolof/yolof_r50-c5_8xb8-1x_coco.py', dense(boxes=dict(std=1.5))),
    'ssd': Case('ssd/ssd300_coco.py', ssd, shape=(300, 300)),
    'ssd-v1': Case('legacy_1.x/ssd300_coco_v1.py', ssd, shape=(300, 300)),
    'ssd-pisa': Case('pisa/ssd300_pisa_coco.py', ssd, shape=(300, 300)),
    'paa': Case('paa/paa_r50_fpn_1x_coco.py', PAA),
    'paa-without-voting': Case('paa/paa_r50_fpn_1x_coco.py', PAA,
                               head=dict(score_voting=False)),
    'lad': Case('lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py', PAA),
    'fcos': Case('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', distances(factor=True)),
    'fcos-center': Case(
        'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
        distances(factor=True)),
    'fcos-unclipped': Case('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', distances(factor=True),
                           head=dict(bbox_coder=dict(type='DistancePointBBoxCoder',
                                                     clip_border=False))),
    'fcos-v3det': Case('v3det/fcos_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py',
                       distances(factor=True, scores=dict(mean=-8.0)),
                       head=dict(loss_cls=dict(num_classes=CLASSES))),
    'nas-fcos': Case('nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py',
                     distances(factor=True)),
    'autoassign': Case('autoassign/autoassign_r50-caffe_fpn_1x_coco.py', distances(factor=True)),
    'centernet-update': Case('centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py', distances()),
    'vfnet': Case('vfnet/vfnet_r50_fpn_1x_coco.py', distances()),
    'rtmdet': Case('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', RARE),
    'rtmdet-shared': Case('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', RARE, head=dict(
        type='RTMDetHead'), dropped=('exp_on_reg', 'share_conv')),
    'gfl': Case('gfl/gfl_r50_fpn_1x_coco.py', dense(box_channels=68, boxes=dict(std=2.0))),
    'ld': Case('ld/ld_r18-gflv1-r101_fpn_1x_coco.py',
               dense(box_channels=68, boxes=dict(std=2.0))),
    'tood': Case('tood/tood_r50_fpn_1x_coco.py',
                 ordered_boxes(5.0, scores=dict(mean=-4.5, std=1.5), probabilities=True)),
    'reppoints': Case('reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py', BOXES_5),
    'reppoints-grid': Case('reppoints/reppoints-bbox_r50_fpn-gn_head-gn-grid_1x_coco.py', BOXES_5),
    'foveabox': Case('foveabox/fovea_r50_fpn_4xb4-1x_coco.py', dense()),
    'foveabox-align': Case('foveabox/fovea_r50_fpn_gn-head-align_4xb4-2x_coco.py', dense()),
    'yolox': Case('yolox/yolox_s_8xb8-300e_coco.py', yolox),
    'yolov3': Case('yolo/yolov3_d53_8xb8-320-273e_coco.py', yolo_v3),
    'yolov3-mobilenet': Case('yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py', yolo_v3),
    'centernet': Case('centernet/centernet_r18_8xb16-crop512-140e_coco.py', center_maps),
    'cornernet': Case('cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
                      corner_maps(False)),
    'centripetalnet': Case(
        'centripetalnet/centripetalnet_hourglass104_16xb6-crop511-210e-mstest_coco.py',
        corner_maps(True)),
    'ga-retinanet': Case('guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py', guided),
    'sabl': Case('sabl/sabl-retinanet_r50_fpn_1x_coco.py', buckets),
    'detr': Case('detr/detr_r50_8xb2-150e_coco.py', queries),
    'conditional-detr': Case('conditional_detr/conditional-detr_r50_8xb2-50e_coco.py', queries),
    'dab-detr': Case('dab_detr/dab-detr_r50_8xb2-50e_coco.py', queries),
    'deformable-detr': Case('deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', queries),
    'dino': Case('dino/dino-4scale_r50_8xb2-12e_coco.py', queries),
}


@functools.lru_cache(maxsize=None)
def _model_of(config: str):
    import mmdet
    from mmengine.config import Config
    return Config.fromfile(Path(mmdet.__file__).parent / '.mim' / 'configs' / config).model


def config_of(case: Case) -> Any:
    """The detector in a stock config."""
    return _model_of(case.config)


def build_head(case: Case) -> nn.Module:
    """The stock head as its detector builds it for testing."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config, ConfigDict

    from mmdet_bpu.families.stock_repairs import apply_repairs
    register_all_modules()
    apply_repairs()  # SSDHead
    model = config_of(case)
    changes = copy.deepcopy(dict(num_classes=CLASSES, **case.head))
    head = Config._merge_a_into_b(changes, model.bbox_head.to_dict())
    head = {name: value for name, value in head.items() if name not in case.dropped}
    test_cfg = dict(model.get('test_cfg') or {}, **case.test_cfg)
    return MODELS.build(ConfigDict(dict(head, train_cfg=None, test_cfg=test_cfg))).eval()


def outputs_of(case: Case, head: nn.Module, seed: int = 0) -> Tree:
    """Random raw outputs of a head."""
    return case.outputs(head, case.shape, torch.Generator().manual_seed(seed))


def families_by_head() -> Dict[str, Any]:
    """Name of a head's class of mmdet -> its family."""
    import inspect

    from mmdet.models import dense_heads
    from mmdet.registry import MODELS

    from mmdet_bpu.families.base import FAMILIES
    found = {name: FAMILIES.of_head(cls) for name, cls in vars(dense_heads).items()
             if inspect.isclass(cls) and MODELS.get(name) is cls}
    return {name: family for name, family in found.items() if family is not None}


def facts_of_head(head: nn.Module, shape: Tuple[int, int]) -> Dict[str, Any]:
    """The post-processing part of a contract, as it comes back from a file."""
    from mmdet_bpu.families.base import FAMILIES
    facts = FAMILIES.of_head(type(head)).facts(head, head.test_cfg, shape)
    return json.loads(json.dumps(facts))


def as_arrays(tree: Any, family: str) -> Any:
    """Outputs as an executable gives them: of a head over queries without the layers."""
    if isinstance(tree, list):
        return [as_arrays(part, family) for part in tree]
    return (tree[0] if family == 'detr' else tree).numpy()


def stock_detections(head: nn.Module, tree: Tree, shape: Tuple[int, int],
                     scale_factor: Optional[Tuple[float, float]] = None, **options) -> Any:
    """What the stock head makes of its outputs; in px of the picture if there is a scale."""
    meta = dict(img_shape=shape, batch_input_shape=shape, border=[0, 0, 0, 0],
                scale_factor=scale_factor)
    copies = copy.deepcopy(tree)  # YOLOv3's post-processing writes into them
    return head.predict_by_feat(*copies, batch_img_metas=[meta],
                                rescale=scale_factor is not None, **options)[0]


def quantized(tree: Tree, facts: Dict[str, Any]) -> Tuple[Tree, Dict[str, Any]]:
    """Outputs rounded to integers.

    Returns:
        tuple: What the integers mean, for the stock head; a contract, with ``integers`` by name.
    """
    integers, outputs = {}, []

    def visit(part, name):
        if isinstance(part, list):
            pairs = [visit(item, f'{name}.{index}') for index, item in enumerate(part)]
            return [real for real, _ in pairs], [leaf for _, leaf in pairs]
        scale = float(part.abs().max() / 2**22)  # fine: few scores become equal
        levels = torch.round(part / scale).to(torch.int32)
        integers[name] = (levels[0] if facts['family'] == 'detr' else levels).numpy()
        outputs.append(dict(name=name, scale=scale))
        return levels.float() * torch.tensor(scale), name

    real, names = visit(tree, 'head')
    height, width = facts['input_shape']
    resize = dict(height=height, width=width, keep_ratio=False)
    return real, dict(integers=integers, outputs=outputs, output_tree=names,
                      preprocessing=dict(resize=resize), postprocessing=facts)
