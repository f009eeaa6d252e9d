"""Fixtures: one stock detector of every kind of head, made small, with random weights."""
import copy
import functools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmdet_bpu.openmmlab  # noqa: F401  (stands in for mmcv._ext before mmdet is imported)

SHAPE = (128, 160)  # (height, width), px
BASE = 8  # channels of the first stage of a ResNet; the next ones have 2, 4 and 8 times as many

DENSE = {
    'retinanet': 'retinanet/retinanet_r18_fpn_1x_coco.py',
    'fcos': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'atss': 'atss/atss_r50_fpn_1x_coco.py',
    'gfl': 'gfl/gfl_r50_fpn_1x_coco.py',
    'yolox': 'yolox/yolox_tiny_8xb8-300e_coco.py',
    'rtmdet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'yolov3': 'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
    'centernet': 'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'ssd': 'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
    'sabl': 'sabl/sabl-retinanet_r50_fpn_1x_coco.py',
    'yolof': 'yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'paa': 'paa/paa_r50_fpn_1x_coco.py',
}
DETRS = {
    'detr': 'detr/detr_r18_8xb2-500e_coco.py',
    'conditional': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'dab': 'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    'dino': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'deformable': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'deformable-refine': 'deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py',
    'deformable-twostage': 'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
}
CORNERS = {'cornernet': 'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py'}
STOCK = {**DENSE, **DETRS, **CORNERS}


def shrink(model) -> None:
    """A ResNet-18 of few channels, two decoder layers, and a threshold that every box passes."""
    backbone, neck = model.backbone, model.get('neck')
    backbone.init_cfg = None
    if backbone.type == 'ResNet':
        backbone.update(depth=18, base_channels=BASE, stem_channels=BASE, frozen_stages=-1)
        channels = [BASE * 2**index for index in backbone.get('out_indices', range(4))]
        many = isinstance(neck.in_channels, (list, tuple))
        neck.in_channels = channels if many else channels[-1]
    for part in ('encoder', 'decoder'):
        if part in model:
            model[part].num_layers = 1 if part == 'encoder' else 2
    if 'encoder' in model:
        model.num_queries = 20
        model.setdefault('test_cfg', {}).update(max_per_img=15)
    elif 'score_thr' in model.test_cfg:
        model.test_cfg.update(score_thr=0.0, nms_pre=100)


@functools.lru_cache(maxsize=None)
def _stock_model(config: str):
    from mmengine.hub import get_config
    return get_config(f'mmdet::{config}').model


def build(kind: str, **changes) -> nn.Module:
    """A stock detector of :data:`STOCK`; ``changes`` go into its model config."""
    from mmdet.registry import MODELS
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import DefaultScope

    import mmdet_bpu.registration  # noqa: F401
    from mmdet_bpu.analysis.model_check import set_random_weights
    model = copy.deepcopy(_stock_model(STOCK[kind]))
    shrink(model)
    for field, value in changes.items():
        model[field].update(value)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = revert_sync_batchnorm(MODELS.build(model)).eval()
    set_random_weights(detector)
    measure_norms(detector)
    return detector


@torch.no_grad()
def measure_norms(detector: nn.Module) -> None:
    """Statistics of batch norms from two images: random weights alone let activations explode."""
    from mmdet_bpu.families.base import FAMILIES
    from mmdet_bpu.families.detector_path import input_channels
    norms = [module for module in detector.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.train().momentum = 1.0
    images = torch.randn(2, input_channels(detector), *SHAPE,
                         generator=torch.Generator().manual_seed(4))
    FAMILIES.of(detector).run(detector, images)
    for norm in norms:
        norm.eval()


@pytest.fixture(scope='session')
def stock():
    """Function (kind) -> stock detector with random weights, the same one at every call."""
    return functools.cache(build)


@pytest.fixture(scope='session')
def new_stock():
    """Function (kind, **changes of the model config) -> a stock detector of its own."""
    return build


@pytest.fixture(scope='session')
def picture() -> Tensor:
    """A normalised image (1, 3, H, W)."""
    return torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(3))
