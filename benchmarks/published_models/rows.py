"""Rows of the vendor's table and how each is built here."""
from pathlib import Path
from typing import Callable, Dict

from mmdet.registry import MODELS
from torch import nn

from mmdet_bpu import apis
from mmdet_bpu.engine.stages import load_config
from published_models.blocks import Classifier, Network
from published_models.convolutional import GoogLeNet, YOLOv2
from published_models.fcos3d import FCOS3D
from published_models.mobilenet import MobileNetV1, SSDMobileNetV1, UnetMobileNetV1
from published_models.transformers import ViTSmall

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def backbone(channels: int, **config) -> nn.Module:
    """A backbone of mmdet as a classifier."""
    return Network(Classifier(MODELS.build(config), channels))


def detector(config: str) -> nn.Module:
    """The detector of a config."""
    cfg = load_config(config, 'qat', {'model.backbone.init_cfg': None})
    return apis.build_detector(cfg)


ROWS: Dict[str, Callable[[], nn.Module]] = {
    'MobileNetv1': lambda: Network(Classifier(MobileNetV1(), 1024)),
    'MobileNetv2': lambda: backbone(1280, type='MobileNetV2', out_indices=(7, ),
                                    act_cfg=dict(type='ReLU')),
    'ResNet50': lambda: backbone(2048, type='ResNet', depth=50, style='caffe', out_indices=(3, )),
    'YOLOv2_Darknet19': lambda: Network(YOLOv2()),
    'Detr_resnet50': lambda: detector('mmdet::detr/detr_r50_8xb2-150e_coco.py'),
    'Deformable_detr_resnet50': lambda: detector(
        str(CONFIGS / 'deformable_detr' / 'deformable-detr_r50_vendor_float.py')),
    'Unet_mobilenetv1': lambda: Network(UnetMobileNetV1()),
    'GoogleNet': lambda: Network(Classifier(GoogLeNet(), 1024)),
    'Horizon_swin_transformer': lambda: backbone(768, type='SwinTransformer', out_indices=(3, )),
    'SSD_MobileNetv1': lambda: Network(SSDMobileNetV1()),
    'Vit_small': lambda: Network(ViTSmall()),
    'FCOS3D_efficientnetb0': lambda: Network(FCOS3D()),
}
"""Name in the table -> float model, in the shape of a detector."""
