"""mmcv's modules with our function: what they are equal to, and the detectors that hold them."""
import copy
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

import mmdet_bpu.openmmlab  # noqa: F401  (stands in for mmcv._ext)

mmcv_ops = pytest.importorskip('mmcv.ops')

from mmcv.cnn import build_conv_layer  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmengine.hub import get_config  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402

import mmdet_bpu.registration  # noqa: E402, F401
from mmdet_bpu.compat import has_compiled_ext  # noqa: E402
from mmdet_bpu.errors import BpuError  # noqa: E402
from mmdet_bpu.models.deform_conv2d import deform_conv2d  # noqa: E402
from mmdet_bpu.models.deformable_convolution import (  # noqa: E402
    OPEN_CLASSES, OpenTOODHead, open_deformable_convolution)
from mmdet_bpu.families.detector_path import run_tensor_path  # noqa: E402

GEOMETRY = dict(in_channels=4, out_channels=6, kernel_size=3, stride=2, padding=1, groups=2,
                deform_groups=2)
MODULES = [mmcv_ops.DeformConv2d, mmcv_ops.DeformConv2dPack, mmcv_ops.ModulatedDeformConv2d,
           mmcv_ops.ModulatedDeformConv2dPack]
GENERATOR = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def opened(module):
    holder = nn.ModuleList([copy.deepcopy(module)])
    assert open_deformable_convolution(holder) == 1
    return holder[0]


def stock(cls, **changes):
    module = cls(**{**GEOMETRY, **changes})
    for parameter in module.parameters():
        parameter.data.copy_(random(*parameter.shape) * 0.5)
    return module


@pytest.mark.parametrize('cls', MODULES)
def test_parameters_and_state_dict_stay(cls):
    module = stock(cls)
    result = opened(module)
    assert isinstance(result, cls) and type(result) is not cls
    assert list(result.state_dict()) == list(module.state_dict())
    result.load_state_dict(stock(cls).state_dict(), strict=True)
    again = copy.deepcopy(result)
    assert type(again) is type(result)


@pytest.mark.parametrize('cls', MODULES)
def test_an_open_module_and_a_subclass_are_left_alone(cls):
    custom = type('Custom', (cls, ), {})
    holder = nn.ModuleList([opened(stock(cls)), stock(custom)])
    assert open_deformable_convolution(holder) == 0
    assert type(holder[1]) is custom


@pytest.mark.parametrize('conv_type', ['DCN', 'DCNv2'])
def test_the_layers_behind_a_conv_type_are_opened(conv_type):
    layer = build_conv_layer(dict(type=conv_type, deform_groups=2), 4, 6, 3)
    assert OPEN_CLASSES[type(layer)].__base__ is type(layer)


def test_v1_and_v2_use_the_modules_geometry(direct_deform_conv2d):
    image, offset, mask = random(2, 4, 5, 7), random(2, 36, 3, 4), random(2, 18, 3, 4).sigmoid()
    geometry = dict(stride=(2, 2), padding=(1, 1), groups=2, offset_groups=2)
    v1, v2 = opened(stock(MODULES[0])), opened(stock(MODULES[2]))
    with torch.no_grad():
        np.testing.assert_allclose(
            v1(image, offset), direct_deform_conv2d(image, offset, v1.weight, **geometry),
            rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            v2(image, offset, mask),
            direct_deform_conv2d(image, offset, v2.weight, mask, v2.bias, **geometry),
            rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('cls', [MODULES[1], MODULES[3]], ids=['DCN', 'DCNv2'])
def test_offsets_and_masks_of_a_new_layer_make_it_a_convolution(cls):
    module = opened(stock(cls))
    module.init_offset() if cls is MODULES[1] else module.init_weights()
    image = random(2, 4, 6, 7)
    expected = F.conv2d(image, module.weight, stride=2, padding=1, groups=2)
    if cls is MODULES[3]:
        expected = expected * 0.5 + module.bias[:, None, None]  # the mask is sigmoid(0)
    torch.testing.assert_close(module(image), expected)


@pytest.mark.parametrize('cls', [MODULES[1], MODULES[3]], ids=['DCN', 'DCNv2'])
def test_offsets_shift_the_taps_and_masks_weigh_them(cls):
    """One channel of offsets per tap and axis, y first; then, in v2, one of the mask per tap."""
    module = opened(stock(cls, stride=1, padding=0, groups=1, deform_groups=1))
    module.conv_offset.weight.data.zero_()
    maps = module.conv_offset.bias.data.zero_()
    maps[:18] = torch.tensor([1.0, -2.0]).repeat(9)
    image = random(1, 4, 9, 9)
    weight = module.weight
    expected_bias = 0
    if cls is MODULES[3]:
        maps[18:] = torch.linspace(-3, 3, 9)
        weight = weight * maps[18:].sigmoid().view(3, 3)
        expected_bias = module.bias[:, None, None]
    # Position (y, x) reads what the convolution reads at (y + 1, x - 2).
    expected = F.conv2d(image, weight)[:, :, 1:, :-2] + expected_bias
    torch.testing.assert_close(module(image)[:, :, :-1, 2:], expected)


def test_an_image_smaller_than_the_kernel_is_as_one_padded_with_zeros():
    """mmcv pads image and offsets at their ends and cuts the result."""
    module = opened(stock(MODULES[0], kernel_size=5, stride=1, padding=2))
    image, offset = random(2, 4, 3, 7), random(2, 100, 3, 7) * 2
    padded = module(F.pad(image, (0, 0, 0, 2)), F.pad(offset, (0, 0, 0, 2)))
    torch.testing.assert_close(module(image, offset), padded[:, :, :3])


@pytest.mark.parametrize('contiguous', [True, False])
def test_v2_reads_larger_maps_from_their_start(direct_deform_conv2d, contiguous):
    module = opened(stock(MODULES[2], stride=1, groups=1, deform_groups=1))
    image, maps = random(2, 4, 3, 4), random(2, 27, 6, 7)
    offset, mask = maps[:, :18], maps[:, 18:].sigmoid()
    if contiguous:
        offset = offset.contiguous()
    memory = [np.stack([image.ravel()[:count * 12].reshape(count, 3, 4)
                        for image in part.numpy().copy()])
              for part, count in ((offset, 18), (mask, 9))]
    with torch.no_grad():
        np.testing.assert_allclose(
            module(image, offset, mask),
            direct_deform_conv2d(image, memory[0], module.weight, memory[1], module.bias,
                                 padding=(1, 1)), rtol=1e-5, atol=1e-5)


def test_maps_too_small_to_read_are_refused():
    module = opened(stock(MODULES[2], stride=1, groups=1, deform_groups=1))
    with pytest.raises(BpuError, match=r'expected offset of shape \(1, 18, 3, 4\), found '):
        module(random(1, 4, 3, 4), random(1, 18, 3, 3), random(1, 9, 3, 4))
    with pytest.raises(BpuError, match=r'expected mask of shape \(1, 9, 3, 4\), found '):
        module(random(1, 4, 3, 4), random(1, 18, 3, 4), random(1, 9, 2, 4))


def test_tood_samples_each_coordinate_at_its_own_place():
    boxes = random(2, 4, 5, 6).double()
    offset = random(2, 8, 5, 6).double() * 2
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing='ij')
    expected = []
    for channel in range(4):
        dy, dx = offset[:, 2 * channel], offset[:, 2 * channel + 1]
        grid = torch.stack([2 * (x + dx) / 5 - 1, 2 * (y + dy) / 4 - 1], -1)
        expected.append(F.grid_sample(boxes[:, channel:channel + 1], grid, align_corners=True))
    found = OpenTOODHead.deform_sampling(None, boxes, offset)
    torch.testing.assert_close(found, torch.cat(expected, 1))


# Stock config -> (how many modules are opened, how often the function is called).
DETECTORS = {
    'tood/tood_r50_fpn_1x_coco.py': (1, 5),
    'vfnet/vfnet_r50_fpn_1x_coco.py': (2, 10),
    'reppoints/reppoints-moment_r50_fpn_1x_coco.py': (2, 10),
    'reppoints/reppoints-bbox_r50_fpn-gn_head-gn-grid_1x_coco.py': (2, 10),
    'foveabox/fovea_r50_fpn_gn-head-align_4xb4-2x_coco.py': (1, 5),
    'ddod/ddod_r50_fpn_1x_coco.py': (2, 10),
    'centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco.py': (3, 3),
    # 2 blocks; a level takes in itself, the one above and the one below.
    'dyhead/atss_r50_fpn_dyhead_1x_coco.py': (6, 2 * 13),
    'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py': (12 + 4, 12 + 20),
    # With deformable backbones, which need bottlenecks.
    'fcos/fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py':
    (13 + 2, 13 + 10),
    'vfnet/vfnet_r50-mdconv-c3-c5_fpn_ms-2x_coco.py': (13 + 4, 13 + 20),
}


def small(name):
    """A stock detector with a thin backbone, random weights and offsets that are not 0."""
    model = get_config(f'mmdet::{name}').model
    depth, width, expansion = (50, 4, 4) if 'dcn' in model.backbone else (18, 16, 1)
    model.backbone.update(depth=depth, base_channels=width, init_cfg=None)
    neck = model.neck
    if isinstance(neck, list):
        neck, dyhead = neck
        dyhead.num_blocks = 2
    widths = [width * expansion * 2**stage for stage in range(4)]
    neck.in_channels = widths if isinstance(neck.in_channels, list) else widths[-1]
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(model)
    for path, parameter in model.named_parameters():
        if 'offset' in path:
            parameter.data.normal_(std=0.05)
    return model.eval()


class CallCounter(TorchFunctionMode):

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func is deform_conv2d
        return func(*args, **kwargs or {})


@pytest.mark.parametrize('name', DETECTORS, ids=os.path.dirname)
def test_a_stock_detector_runs_without_compiled_ops(name):
    model = small(name)
    image = torch.randn(1, 3, 64, 96)
    if not has_compiled_ext():
        with pytest.raises(RuntimeError, match='deform_conv_forward'):
            run_tensor_path(model, image)
    modules, calls = DETECTORS[name]
    assert open_deformable_convolution(model) == modules
    with torch.no_grad(), CallCounter() as counter:
        outputs = run_tensor_path(model, image)
    assert counter.count == calls
    assert all(output.isfinite().all() for output in outputs)


def test_a_detector_trains_through_the_opened_modules():
    model = small('vfnet/vfnet_r50_fpn_1x_coco.py')
    open_deformable_convolution(model)
    head = model.bbox_head
    sum(x.square().mean() for x in run_tensor_path(model, torch.randn(2, 3, 64, 96))).backward()
    for part in (head.vfnet_cls_dconv, head.vfnet_reg_refine_dconv, head.vfnet_reg):
        assert part.weight.grad.abs().sum() > 0
