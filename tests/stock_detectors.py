"""Fixtures: stock Deformable DETR in three variants, and toys of a few calls."""
import copy
import functools
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mmdet_bpu.openmmlab  # noqa: F401  (stands in for mmcv._ext before mmdet is imported)

TOY_SHAPE = (4, 6)
TOY_IMAGE = torch.randn(1, 3, *TOY_SHAPE, generator=torch.Generator().manual_seed(0))
STOCK = '.mim/configs/deformable_detr/deformable-detr{}_r50_16xb2-50e_coco.py'
SMALL = dict(
    num_queries=8,
    num_feature_levels=2,
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
        out_indices=(2, 3),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='pytorch'),
    neck=dict(in_channels=[32, 64], num_outs=2),
    encoder=dict(
        num_layers=1,
        layer_cfg=dict(self_attn_cfg=dict(num_levels=2, dropout=0.0),
                       ffn_cfg=dict(feedforward_channels=64, ffn_drop=0.0))),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(self_attn_cfg=dict(dropout=0.0),
                       cross_attn_cfg=dict(num_levels=2, dropout=0.0),
                       ffn_cfg=dict(feedforward_channels=64, ffn_drop=0.0))),
    bbox_head=dict(num_classes=3),
    test_cfg=dict(max_per_img=8))


def randomise(model: nn.Module) -> nn.Module:
    """Weights and statistics that hide nothing: no zeros, no ones, nothing left uninitialised."""
    generator = torch.Generator().manual_seed(1)

    def normal(tensor, std, mean=0.0):
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator) * std + mean)

    if hasattr(model, 'level_embed'):
        normal(model.level_embed, 1.0)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            normal(module.weight, 0.05)
            normal(module.bias, 0.05)
        elif isinstance(module, nn.BatchNorm2d):
            normal(module.running_mean, 0.1)
            module.running_var.copy_(
                torch.rand(module.running_var.shape, generator=generator) + 0.5)
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)):
            normal(module.weight, 0.1, 1.0)
            normal(module.bias, 0.1)
    return model.eval()


@functools.lru_cache(maxsize=None)
def stock_config(variant: str):
    import mmdet
    from mmengine.config import Config
    return Config.fromfile(Path(mmdet.__file__).parent / STOCK.format(variant))


def build_detector(variant: str, changes: dict) -> nn.Module:
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    register_all_modules()
    warnings.filterwarnings('ignore', category=UserWarning)
    stock = stock_config(variant).model.to_dict()
    model = Config(Config._merge_a_into_b(copy.deepcopy(changes), stock))
    model.backbone.init_cfg = None
    torch.manual_seed(0)
    return randomise(MODELS.build(model._cfg_dict))


@pytest.fixture(scope='session')
def detector():
    """Function (variant, **changes of the model config) -> stock detector with random weights."""
    return lambda variant='', **changes: build_detector(variant, changes)


@pytest.fixture(scope='session')
def small_detector():
    """Function (variant) -> the stock detector, small: ResNet-18, 2 levels, 1 + 2 layers."""
    return lambda variant='-refine-twostage', **changes: build_detector(
        variant, {**SMALL, **changes})


class ToyDetector(nn.Module):
    """A detector whose tensor path is one function ``body(detector, image)``."""

    def __init__(self, body, modules) -> None:
        super().__init__()
        self.body = body
        for name, module in modules.items():
            self.add_module(name, module)
        self.bbox_head = nn.Identity()
        self.anchor = nn.Parameter(torch.zeros(1))

    def extract_feat(self, image):
        return self.body(self, image)

    def forward(self, image):
        return self.bbox_head.forward(self.extract_feat(image))


@pytest.fixture(scope='session')
def toy():
    """Function (body, **modules) -> :class:`ToyDetector` in eval mode."""

    def build(body, **modules) -> ToyDetector:
        torch.manual_seed(0)
        return ToyDetector(body, modules).eval()

    return build


def _unary(x, p):
    plain = {
        'add': lambda: x + p['value'],
        'mul': lambda: x * p['value'],
        'rsub': lambda: p['value'] - x,
        'rdiv': lambda: p['value'] / x,
        'clamp': lambda: torch.clamp(x, p.get('min'), p.get('max')),
        'square': lambda: x * x,
        'pow': lambda: x**p['exponent'],
        'gelu': lambda: F.gelu(x, approximate=p['approximate']),
    }
    if p['fn'] in plain:
        return plain[p['fn']]()
    arguments = [value for name, value in p.items() if name != 'fn']
    return getattr(torch if hasattr(torch, p['fn']) else F, p['fn'])(x, *arguments)


def _conv2d(x, weight, bias=None, *, stride, padding, dilation, groups):
    top, left, bottom, right = padding
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, 0, dilation, groups)


def _deform_conv2d(x, weight, bias, offset, mask=None, *, padding, **params):
    from mmdet_bpu.models.deform_conv2d import deform_conv2d
    return deform_conv2d(x, offset, weight, mask, bias, padding=padding[:2], **params)


def _conv_transpose2d(x, weight, bias=None, *, stride, padding, dilation, groups):
    """The whole result with room behind it, cut by the padding on each side."""
    top, left, bottom, right = padding
    behind = [max(-bottom, 0), max(-right, 0)]
    whole = F.conv_transpose2d(x, weight, bias, stride, 0, behind, groups, dilation)
    return whole[:, :, top:whole.shape[2] - max(bottom, 0), left:whole.shape[3] - max(right, 0)]


def _slice(x, p):
    index = [slice(None)] * x.dim()
    index[p['dim']] = slice(p['begin'], p['end'], p['step'])
    return x[tuple(index)]


def _max_pool2d(x, p):
    return F.max_pool2d(x, p['kernel'], p['stride'], p['padding'], p['dilation'], p['ceil_mode'])


def _read_positions(op, size, count, axis):
    """Where result i reads along an axis: start + i * step px, inside the image."""
    start, step = op.params['start'][axis], op.params['step'][axis]
    return [min(max(start + i * step, 0), size - 1) for i in range(count)]


def _resize_nearest(op, x, shape):
    rows, columns = ([math.floor(p) for p in _read_positions(op, x.shape[2 + i], shape[2 + i], i)]
                     for i in (0, 1))
    return x[:, :, rows][..., columns]


def _resize_bilinear(op, x, shape):
    weights = []
    for axis in (0, 1):
        size, count = x.shape[2 + axis], shape[2 + axis]
        positions = torch.tensor(_read_positions(op, size, count, axis), dtype=torch.float64)
        distance = (positions[:, None] - torch.arange(size)).abs()
        weights.append((1 - distance).clamp(min=0).float())  # a hat over every pixel
    return weights[0] @ x @ weights[1].t()


def execute_op(op, inputs, shape):
    """What the kind of ``op`` means, in torch."""
    x, p = inputs[0], op.params
    meanings = {
        'pad': lambda: F.pad(x, [n for pair in zip(p['begin'][::-1], p['end'][::-1])
                                 for n in pair], value=p['fill']),
        'flip': lambda: x.flip(p['dims']),
        'roll': lambda: x.roll(p['shifts'], p['dims']),
        'select': lambda: torch.where(*inputs),
        'conv2d': lambda: _conv2d(*inputs, **p),
        'deform_conv2d': lambda: _deform_conv2d(*inputs, **p),
        'conv_transpose2d': lambda: _conv_transpose2d(*inputs, **p),
        'linear': lambda: F.linear(*inputs),
        'matmul': lambda: torch.matmul(*inputs),
        'add': lambda: x + inputs[1],
        'sub': lambda: x - inputs[1],
        'mul': lambda: x * inputs[1],
        'div': lambda: x / inputs[1],
        'maximum': lambda: torch.maximum(*inputs),
        'minimum': lambda: torch.minimum(*inputs),
        'scale': lambda: x * p['factor'],
        'unary': lambda: _unary(x, p),
        'relu': lambda: x.clamp(min=0),
        'sum': lambda: x.sum(p['dims'], keepdim=True),
        'mean': lambda: x.mean(p['dims'], keepdim=True),
        'amax': lambda: x.amax(p['dims'], keepdim=True),
        'amin': lambda: x.amin(p['dims'], keepdim=True),
        'reshape': lambda: x.reshape(shape),
        'permute': lambda: x.permute(p['dims']),
        'slice': lambda: _slice(x, p),
        'expand': lambda: x.expand(shape),
        'tile': lambda: x.repeat(p['multiples']),
        'concat': lambda: torch.cat(inputs, p['dim']),
        'stack': lambda: torch.stack(inputs, p['dim']),
        'grid_sample': lambda: F.grid_sample(x, inputs[1], padding_mode=p['padding'],
                                             align_corners=False),
        'resize_nearest': lambda: _resize_nearest(op, x, shape),
        'resize_bilinear': lambda: _resize_bilinear(op, x, shape),
        'max_pool2d': lambda: _max_pool2d(x, p),
        'avg_pool2d': lambda: F.avg_pool2d(x, p['kernel'], p['stride']),
        'topk': lambda: x.topk(p['k'], p['dim'])[('values', 'indices').index(p['part'])],
        'gather': lambda: x.gather(p['dim'], inputs[1]),
        'where': lambda: inputs[1].masked_fill(x, p['fill']),
        'positive': lambda: x > 0,
        'not_negative': lambda: x >= 0,
    }
    return meanings[op.kind]()


@torch.no_grad()
def execute_graph(graph, image):
    """Outputs of an operation graph, each kind executed by its definition."""
    values = {name: info.data for name, info in graph.values.items() if info.is_constant}
    values[graph.inputs[0]] = image
    for op in graph.ops:
        shape = graph.values[op.output].shape
        values[op.output] = execute_op(op, [values[name] for name in op.inputs], shape)
        assert tuple(values[op.output].shape) == tuple(shape), op
    return [values[name] for name in graph.outputs]


@pytest.fixture(scope='session')
def execute():
    """Function (operation graph, image) -> list of outputs: the reference of the graph's kinds."""
    return execute_graph


@pytest.fixture(scope='session')
def run_quantized():
    """Function (prepared detector, image) -> last layer's outputs, in the state it is in."""
    from mmdet_bpu.families.detector_path import example_samples

    @torch.no_grad()
    def run(model, image):
        samples = example_samples(len(image), tuple(image.shape[-2:]))
        outputs = model.forward(image, samples, mode='tensor')
        return [output[-1] for output in outputs[:2]]

    return run


@pytest.fixture(scope='session')
def losses_of():
    """Function (detector, image) -> its losses in training mode, with two boxes per image."""
    from mmengine.structures import InstanceData

    from mmdet_bpu.families.detector_path import example_samples

    def run(model, image):
        samples = example_samples(len(image), tuple(image.shape[-2:]))
        for sample in samples:
            sample.gt_instances = InstanceData(
                bboxes=torch.tensor([[5.0, 6.0, 30.0, 28.0], [20.0, 10.0, 60.0, 50.0]]),
                labels=torch.tensor([0, 2]))
        return model.train()(image, samples, mode='loss')

    return run


@torch.no_grad()
def calibrate(model, image):
    """Give a prepared detector scales of an image; state quantize."""
    from mmdet_bpu.families.detector_path import example_samples
    from mmdet_bpu.quantization import finish_calibration, set_quant_state
    set_quant_state(model, 'observe')
    if isinstance(model, ToyDetector):
        model(image)
    else:
        model.forward(image, example_samples(len(image), tuple(image.shape[-2:])), mode='tensor')
    finish_calibration(model)
    set_quant_state(model, 'quantize')
    return model


@pytest.fixture(scope='session')
def calibrated():
    """Function (prepared detector, image) -> it; see :func:`calibrate`."""
    return calibrate


@dataclass
class Run:
    """What became of a function of the image.

    Attributes:
        kinds (list[str]): Of the operation graph; names of functions for ``unary``.
        instructions (list[str]): Of the integer program.
        comparison (dict): QAT against integers, op by op.
        model (nn.Module): Prepared and calibrated, in state quantize.
        program (ModuleOp): The integer program.
    """
    kinds: List[str]
    instructions: List[str]
    comparison: dict
    model: Any
    program: Any


@pytest.fixture(scope='session')
def through(toy, execute, calibrated):
    """Function (body, **modules) -> :class:`Run`; the graph must compute what the body does.

    ``body(detector, image)`` runs under one seed, so that constants that it draws are the same.
    """
    from mmdet_bpu.analysis.qat_vs_int import compare_qat_int
    from mmdet_bpu.graph.deploy_graph import deploy_graph
    from mmdet_bpu.hbir.builder import operations
    from mmdet_bpu.hbir.passes import conversion_of
    from mmdet_bpu.lowering.export import export_networks
    from mmdet_bpu.quantization import quantized_graphs
    from mmdet_bpu.quantization import prepare

    def run(body, qconfig=(), **modules) -> Run:

        def seeded(self, image):
            torch.manual_seed(0)
            return body(self, image)

        model = toy(seeded, **modules)
        _, graph = deploy_graph(model, TOY_SHAPE)
        with torch.no_grad():
            expected = model(TOY_IMAGE)
        torch.testing.assert_close(execute(graph, TOY_IMAGE)[0], expected, atol=1e-5, rtol=1e-5)
        kinds = [op.params.get('fn', op.kind) for op in graph.ops]
        model = calibrated(prepare(model, dict(input_shape=TOY_SHAPE, qconfig=list(qconfig))), TOY_IMAGE)
        conversion = conversion_of(export_networks(quantized_graphs(model)))
        image = TOY_IMAGE.permute(0, 2, 3, 1).contiguous()
        names = [op.name.removeprefix('bpu.') for op in operations(conversion.result)]
        return Run(kinds, [n for n in names if n != 'constant'],
                   compare_qat_int(conversion, image), model, conversion.result)

    return run
