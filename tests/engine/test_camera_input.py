"""A config whose network a camera feeds: pipelines, refusals, and the bytes that are given."""
import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS
from mmengine.config import Config

import mmdet_bpu.registration  # noqa: F401
from mmdet_bpu.datasets.camera_pictures import BYTES
from mmdet_bpu.engine.camera_input import CameraInput
from mmdet_bpu.engine.deploy_preprocessing import in_camera_colors
from mmdet_bpu.engine.predictors import picture_pipeline
from mmdet_bpu.engine.promised_input import require_promised_input
from mmdet_bpu.engine.stages import complete_config
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.protocol import Executable
from mmdet_bpu.families.contract import converted_by_host, preprocessing
from mmdet_bpu.program.program import TensorSpec
from mmdet_bpu.quantization.state import input_stage
from mmdet_bpu.runtime.camera import Nv12Frame, as_yuv444
from mmdet_bpu.runtime.camera_frame import plane_types
from mmdet_bpu.runtime.input_stage import host_planes, network_inputs

PACK = dict(type='PackDetInputs', meta_keys=('img_shape', 'ori_shape', 'scale_factor', 'border'))
FORMATS = ['nv12', 'yuv444', dict(format='nv12', range='video', matrix='bt709'),
           dict(format='nv12', model='yuv'), dict(format='yuv444', range='video', model='yuv')]


def config(stage='qat', channels=3, interpolation='bilinear', keep_ratio=True, train=(), **bpu):
    names = ['mean', 'std']
    values = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]) if channels == 3 else ([120.5], [61.0])
    pipeline = [dict(type='LoadImageFromFile', **({} if channels == 3 else dict(color_type='grayscale'))),
                dict(type='Resize', scale=(160, 96), keep_ratio=keep_ratio, interpolation=interpolation),
                PACK]
    return Config(dict(
        bpu=dict(stage=stage, input_shape=(96, 160), **bpu), default_scope='mmdet',
        model=dict(type='RetinaNet', backbone=dict(type='ResNet', depth=18, in_channels=channels),
                   data_preprocessor=dict(type='DetDataPreprocessor', bgr_to_rgb=channels == 3,
                                          **dict(zip(names, values)))),
        train_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=[
            pipeline[0], dict(type='LoadAnnotations', with_bbox=True), *train, *pipeline[1:]])),
        test_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=pipeline))))


def camera_steps(cfg, name='test_dataloader'):
    return [step for step in cfg[name].dataset.pipeline if step['type'].startswith('Camera')]


def noise(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def given(cfg, picture, colors=None, **more):
    """What the config's test pipeline packs of a picture, in its own colours or others."""
    steps = picture_pipeline(cfg)
    if colors is not None:
        steps = in_camera_colors(steps, colors)
    return Compose([TRANSFORMS.build(step) for step in steps])(dict(img=picture, img_id=0, **more))


@pytest.mark.parametrize('stated', FORMATS)
@pytest.mark.parametrize('resize', ['stretch', 'letterbox'])
def test_what_is_evaluated_is_what_the_contract_promises(stated, resize):
    cfg = config(input_format=copy.deepcopy(stated), resize=resize)
    complete_config(cfg)
    require_promised_input(cfg, preprocessing(cfg))
    before = copy.deepcopy(cfg.to_dict())
    complete_config(cfg)
    assert cfg.to_dict() == before


@pytest.mark.parametrize('resize', ['stretch', 'letterbox'])
@pytest.mark.parametrize('picture', [noise(61, 93, 3), noise(301, 40, 3)], ids=['wide', 'tall'])
def test_an_artefact_is_evaluated_on_the_bytes_of_the_host(resize, picture):
    cfg = config('hbm', input_format=dict(format='nv12', range='video'), resize=resize)
    complete_config(cfg)
    stage = preprocessing(cfg)
    found = given(cfg, picture, BYTES)
    planes = host_planes(picture, stage)
    assert np.array_equal(found['inputs'].permute(1, 2, 0).numpy(), as_yuv444(planes))
    specs = [TensorSpec(name, shape, dtype, None) for name, dtype, shape in plane_types('nv12', 96, 160)]
    executable = SimpleNamespace(metadata=dict(preprocessing=stage), inputs=specs)
    camera = {key: stage['camera'][key] for key in ('format', 'range', 'matrix')}
    tensors = CameraInput.of(executable, camera).tensors(found['inputs'].float())
    host = network_inputs(picture, dict(preprocessing=stage, inputs=[dict(name=s.name) for s in specs]))
    assert all(np.array_equal(tensors[name].numpy(), host[name]) for name in host)
    # Boxes come back by the factors of the picture's true size.
    width, height = found['data_samples'].scale_factor
    placed = found['data_samples'].border if resize == 'letterbox' else [0, 96, 0, 160]
    assert (width, height) == pytest.approx(((placed[3] - placed[2]) / picture.shape[1],
                                             (placed[1] - placed[0]) / picture.shape[0]))


def test_a_frame_takes_the_place_of_a_picture():
    cfg = config('hbm', input_format='nv12')
    complete_config(cfg)
    frame = Nv12Frame(noise(60, 90), noise(30, 45, 2))
    found = given(cfg, np.zeros((60, 90, 3), np.uint8), BYTES, camera_frame=frame)
    assert np.array_equal(found['inputs'].permute(1, 2, 0).numpy(),
                          as_yuv444(host_planes(frame, preprocessing(cfg))))


def test_a_gray_camera_feeds_a_model_of_one_channel():
    cfg = config(channels=1, input_format=dict(format='gray', range='video'))
    complete_config(cfg)
    require_promised_input(cfg, preprocessing(cfg))
    assert preprocessing(cfg)['color_order'] == 'gray'
    cfg = config('int', channels=1, input_format='gray')
    complete_config(cfg)
    assert 'camera' not in preprocessing(cfg) and not camera_steps(cfg)


def test_training_sees_the_camera_in_the_place_of_the_resize():
    cfg = config(input_format='nv12', resize='stretch', train=[dict(type='RandomFlip', prob=0.5)])
    complete_config(cfg)
    names = [step['type'] for step in cfg.train_dataloader.dataset.pipeline]
    assert names == ['LoadImageFromFile', 'LoadAnnotations', 'RandomFlip', 'CameraResize',
                     'PackDetInputs']
    letterboxed = config(input_format='nv12', resize='letterbox')
    complete_config(letterboxed)
    step, = camera_steps(letterboxed, 'train_dataloader')
    assert (step['enlarge'], step['colors']) == (False, 'bgr')


def test_a_float_model_is_trained_on_yuv_at_its_own_sizes():
    cfg = config('float', input_format=dict(format='nv12', model='yuv'))
    complete_config(cfg)
    for name in ('train_dataloader', 'test_dataloader'):
        names = [step['type'] for step in cfg[name].dataset.pipeline]
        assert names[-3:] == ['Resize', 'CameraColors', 'PackDetInputs']
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.mean == preprocessor.std == [128.0] * 3 and not preprocessor.bgr_to_rgb
    gray = given(cfg, np.full((50, 70, 3), 77, np.uint8))['inputs']
    assert gray[0].unique().tolist() == [77] and gray[1:].unique().tolist() == [128]
    before = copy.deepcopy(cfg.to_dict())
    complete_config(cfg)
    assert cfg.to_dict() == before
    rgb = config('float', input_format='nv12')
    complete_config(rgb)
    assert not camera_steps(rgb)


@pytest.mark.parametrize('change, words', [
    (dict(input_shape=(95, 160)), r'bpu.input_shape: .*even .*found \(95, 160\); the next that fit: '
     r'\(94, 160\) and \(96, 160\)'),
    (dict(input_shape=(95, 161)), r'\(94, 160\) and \(96, 162\)'),
    (dict(interpolation='bicubic'), "interpolation 'bilinear' for input_format 'nv12'.*'bicubic'"),
    (dict(channels=1), "a model of 3 input channels for 'nv12', found one of 1")])
def test_what_planes_cannot_be_is_refused(change, words):
    shape = change.pop('input_shape', (96, 160))
    cfg = config(input_format='nv12', **change)
    cfg.bpu.input_shape = shape
    with pytest.raises(BpuError, match=words):
        complete_config(cfg)


def test_full_color_planes_have_any_sides():
    cfg = config(input_format='yuv444')
    cfg.bpu.input_shape = (95, 161)
    assert complete_config(cfg).input_shape == (95, 161)


def test_a_checkpoint_keeps_the_setting_as_plain_data():
    cfg = config(input_format=dict(format='nv12', range='video'))
    complete_config(cfg)
    kept = input_stage(cfg.bpu)['input_format']
    assert type(kept) is dict and kept == dict(format='nv12', range='video', matrix='bt601', model='rgb')


def executable(by, kind='nv12', levels='full') -> Executable:
    stage = dict(camera=dict(format=kind, range=levels, matrix='bt601', by=by))
    return SimpleNamespace(metadata=dict(preprocessing=stage), inputs=[
        TensorSpec(name, shape, dtype, None) for name, dtype, shape in plane_types(kind, 8, 8)])


def test_an_artefact_of_another_camera_than_the_config_s_is_refused():
    nv12 = dict(format='nv12', range='full', matrix='bt601')
    assert CameraInput.of(executable('host'), None) is None
    for made, stated, words in (
            (executable('network', levels='video'), nv12, 'takes nv12, video range.*says nv12, full'),
            (executable('network'), None, 'input_format says pictures'),
            (executable('host'), nv12, 'expected one that takes what bpu.input_format says')):
        with pytest.raises(BpuError, match=words):
            CameraInput.of(made, stated)
    odd = executable('network')
    odd.inputs.pop()
    with pytest.raises(BpuError, match='expected the inputs'):
        CameraInput.of(odd, nv12)
    with pytest.raises(BpuError, match=r"'image_y': expected 8 x 8 px, found \(6, 8\)"):
        CameraInput.of(executable('network'), nv12).tensors(torch.zeros(3, 6, 8))


def test_the_contract_of_an_onnx_model_leaves_the_conversion_to_the_host():
    cfg = config(input_format='nv12')
    complete_config(cfg)
    stage = preprocessing(cfg)
    host = converted_by_host(dict(preprocessing=stage))['preprocessing']
    assert (stage['by'], stage['camera']['by']) == ('network', 'network')
    assert (host['by'], host['camera']['by']) == ('host', 'host')
    assert converted_by_host({}) == {}
