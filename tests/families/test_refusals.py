"""Detectors that cannot be deployed are refused before anything is built."""
import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn

import mmdet_bpu.registration  # noqa: F401
from mmdet_bpu import apis
from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES, Family
from mmdet_bpu.families.refusals import refusal, refuse_config

REFUSED = {
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': 'FasterRCNN .* two-stage',
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': 'CascadeRCNN .* two-stage',
    'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py': 'SparseRCNN .* two-stage',
    'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py': 'PanopticFPN .* panoptically',
    'solo/solo_r50_fpn_1x_coco.py': 'SOLO .* masks',
    'yolact/yolact_r50_1xb8-55e_coco.py': 'YOLACT .* masks',
    'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py': 'CondInst .* masks',
    'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py': 'RTMDetInsSepBNHead .* masks',
    'maskformer/maskformer_r50_ms-16xb1-75e_coco.py': 'MaskFormer .* masks',
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': 'Mask2Former .* masks',
    'ld/ld_r18-gflv1-r101_fpn_1x_coco.py': 'KnowledgeDistillationSingleStageDetector .* teacher',
    'lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py': 'LAD .* teacher',
    'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py':
    'SoftTeacher .* teacher',
    'bytetrack/bytetrack_yolox_x_8xb4-amp-80e_crowdhuman-mot17halftrain_test-mot17halfval.py':
    'ByteTrack .* tracks',
    'reid/reid_r50_8xb32-6e_mot15train80_test-mot15val20.py': 'BaseReID .* no boxes',
    'glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py': 'GLIP .* text',
    'grounding_dino/grounding_dino_swin-t_pretrain_obj365_goldg_cap4m.py': 'GroundingDINO .* text',
    'ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py': 'DDQDETRHead .* non-maximum suppression inside',
    'cascade_rpn/cascade-rpn_r50-caffe_fpn_1x_coco.py': 'CascadeRPNHead .* second stage',
    'rpn/rpn_r50_fpn_1x_coco.py': 'RPNHead .* second stage',
}


@pytest.mark.parametrize('config', REFUSED)
def test_it_is_refused_in_one_sentence_that_names_its_class(config):
    with pytest.raises(BpuError, match=REFUSED[config]) as error:
        refuse_config(get_config(f'mmdet::{config}'))
    assert '\n' not in str(error.value) and '. ' not in str(error.value)


@pytest.mark.parametrize('config', [
    'retinanet/retinanet_r18_fpn_1x_coco.py', 'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py'])
def test_a_detector_of_one_network_is_not_refused(config):
    refuse_config(get_config(f'mmdet::{config}'))


def test_every_way_in_refuses(tmp_path):
    cfg = Config(dict(
        model=dict(type='TwoStageDetector'), bpu=dict(stage='float'), work_dir=str(tmp_path),
        default_scope='mmdet'))
    for way in (apis.build_detector, apis.settings_of, apis.check_model, BPURunner.from_cfg):
        with pytest.raises(BpuError, match='TwoStageDetector cannot be deployed'):
            way(cfg)


def test_a_class_that_no_registry_knows_is_left_to_the_build():
    refuse_config(Config(dict(model=dict(type='Unheard', bbox_head=dict(type='OfHead')))))
    refuse_config(Config(dict(model=dict(type='SingleStageDetector', bbox_head=[dict()]))))
    refuse_config(Config(dict()))


def test_what_is_built_is_refused_as_its_config_is(toy):
    model = toy(lambda self, image: image)
    model.bbox_head = type('YOLACTHead', (nn.Identity, ), {})()
    assert refusal(model, Config()) == \
        'YOLACTHead cannot be deployed: it predicts masks, and only boxes can be deployed'
    model.__class__ = type('MaskFormer', (type(model), ), {})
    assert refusal(model, Config()).startswith('MaskFormer cannot')


def test_a_family_may_refuse_or_take_what_its_base_refuses(toy, monkeypatch):

    class Picky(Family):

        def refuse(self, model, cfg):
            return 'not today' if cfg.today else None

    monkeypatch.setattr(FAMILIES, '_by_head', dict(FAMILIES._by_head))
    FAMILIES.register('BoxOnlyHead')(Picky)
    model = toy(lambda self, image: image)
    model.bbox_head = type('BoxOnlyHead', (type('YOLACTHead', (nn.Identity, ), {}), ), {})()
    assert refusal(model, Config(dict(today=True))) == 'not today'
    assert refusal(model, Config(dict(today=False))) is None
