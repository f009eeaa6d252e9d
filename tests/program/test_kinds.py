"""Every kind of operation has all that the steps ask for.

What a row names is looked up where it registers itself, and a toy of each kind goes through the
whole chain: a handler that makes it, its place, its lowering, its integers.
"""
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmdet_bpu.compiler.limits import limits_of
from mmdet_bpu.graph.deploy_graph import deploy_graph
from mmdet_bpu.hbir.bpu_dialect import BPU_OPS, BPU_SPECS
from mmdet_bpu.hbir.bpu_shapes import VERIFY
from mmdet_bpu.hbir.hbir_dialect import HBIR_SPECS
from mmdet_bpu.hbir.reference import FUNCTIONS as REFERENCES
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.lowering.hbir import LOWERINGS
from mmdet_bpu.models.deform_conv2d import deform_conv2d
from mmdet_bpu.program.functions import FUNCTIONS
from mmdet_bpu.program.kinds import (IMAGE_CONVERT, IMAGE_PREPROCESS, KINDS, REQUANTIZE, TABLE,
                                     stands_for)
from mmdet_bpu.quantization.placement import place

SHAPE = (4, 6)
ROOT = Path(__file__).parents[2]
NUMERICS = (ROOT / 'docs/numerics.md').read_text(encoding='utf-8')
WITHOUT_INTEGERS = {'div': 'only inside a table', 'scale': 'another scale of the same integers'}


def grid(x):
    return torch.rand(1, 3, 5, 2) * 2.4 - 1.2


def mask():
    return torch.eye(*SHAPE).bool()


# Kind -> a function of the image whose graph holds it.
TOYS = {
    'conv2d': lambda x: F.conv2d(x, torch.randn(5, 3, 3, 3), padding=1),
    'deform_conv2d': lambda x: deform_conv2d(
        x, torch.randn(1, 18, *SHAPE), torch.randn(5, 3, 3, 3), stride=1, padding=1, dilation=1,
        groups=1, offset_groups=1),
    'conv_transpose2d': lambda x: F.conv_transpose2d(x, torch.randn(3, 5, 2, 2), stride=2),
    'linear': lambda x: F.linear(x, torch.randn(7, 6)),
    'matmul': lambda x: x @ x.mT,
    'add': lambda x: x + x.flip(-1).exp(),
    'sub': lambda x: x - x.flip(-1).exp(),
    'mul': lambda x: x * x.flip(-1).exp(),
    'div': lambda x: x / (1 + x.abs()),
    'maximum': lambda x: torch.maximum(x, x.flip(-1)),
    'minimum': lambda x: torch.minimum(x, x.flip(-1)),
    'unary': lambda x: x.exp(),
    'scale': lambda x: x * 0.5,
    'relu': lambda x: torch.relu(x),
    'sum': lambda x: x.sum(1, keepdim=True),
    'mean': lambda x: x.mean(1, keepdim=True),
    'amax': lambda x: x.amax(1, keepdim=True),
    'amin': lambda x: x.amin(1, keepdim=True),
    'avg_pool2d': lambda x: F.avg_pool2d(x, 2),
    'resize_nearest': lambda x: F.interpolate(x, scale_factor=2),
    'resize_bilinear': lambda x: F.interpolate(x, scale_factor=2, mode='bilinear'),
    'max_pool2d': lambda x: F.max_pool2d(x, 2),
    'reshape': lambda x: x.reshape(3, 4, 6).exp(),
    'permute': lambda x: x.permute(0, 2, 1, 3),
    'pad': lambda x: F.pad(x, (1, 1)),
    'slice': lambda x: x[..., 1:3],
    'flip': lambda x: x.flip(-1),
    'roll': lambda x: x.roll(1, -1),
    'expand': lambda x: x[:, :1].expand(1, 3, 4, 6),
    'tile': lambda x: x.repeat(1, 2, 1, 1),
    'gather': lambda x: x.flatten(1).gather(1, x.flatten(1).topk(5)[1]),
    'where': lambda x: x.masked_fill(mask(), 0.5),
    'concat': lambda x: torch.cat([x, x.flip(-1)], 1),
    'select': lambda x: torch.where(mask(), x, x.flip(-1)),
    'stack': lambda x: torch.stack([x, x.flip(-1)], 1),
    'grid_sample': lambda x: F.grid_sample(x, grid(x), align_corners=False),
    'topk': lambda x: x.flatten(1).topk(5)[0],
    'positive': lambda x: torch.where(x > x.flip(-1), x, x.flip(-1)),
    'not_negative': lambda x: x.masked_fill(x <= x.flip(-1), 0.5),
}
LIMITED = ('nash-e', 'nash-p')


def test_every_kind_has_a_toy():
    assert set(TOYS) == set(KINDS)


@pytest.mark.parametrize('name', TOYS)
def test_a_handler_makes_it_and_placement_knows_its_class(toy, name):
    _, graph = deploy_graph(toy(lambda self, x: TOYS[name](x)), SHAPE)
    made = [op for op in graph.ops if op.kind == name]
    kinds = place(graph).kinds
    assert made and all(kinds[op.output] in ('own', 'alias', 'fused', 'index') for op in made)


@pytest.mark.parametrize('name', KINDS)
def test_what_its_row_names_exists(name):
    row = KINDS[name]
    assert name in LOWERINGS
    assert name == 'unary' or (row.hbir in HBIR_SPECS and f'hbir.{row.hbir}' in REFERENCES)
    if not row.integer:
        assert name in WITHOUT_INTEGERS
        return
    full = f'bpu.{row.integer}'
    assert full in BPU_OPS and row.integer in VERIFY and full in KERNELS
    assert re.search(rf'^(### .*|\| )`{re.escape(full)}`', NUMERICS, re.M), 'no section'
    for march in LIMITED:
        assert limits_of(stands_for().get(full, full), march) is not None


@pytest.mark.parametrize('name', [name for name, row in KINDS.items() if row.integer])
def test_it_runs_on_integers_as_training_rounds(through, name):
    run = through(lambda self, x: TOYS[name](x))
    found = set(run.instructions)
    if name == 'permute':  # an order that is known; written where another one is needed
        assert found <= {'transpose'}
    else:
        assert KINDS[name].integer in found
    assert run.comparison['max_lsb'] <= 1


@pytest.mark.parametrize('name, instructions', [('div', ['table', 'transpose']),
                                                ('scale', ['transpose', 'requantize'])])
def test_kinds_without_an_integer_operation_are_part_of_others(through, name, instructions):
    run = through(lambda self, x: TOYS[name](x))
    assert run.instructions == instructions and run.comparison['max_lsb'] == 0


def test_no_integer_operation_is_left_without_a_kind():
    named = {row.integer for row in KINDS.values() if row.integer}
    assert set(BPU_SPECS) == named | {REQUANTIZE, TABLE, IMAGE_CONVERT, IMAGE_PREPROCESS,
                                      'constant'}


@pytest.mark.parametrize('row', FUNCTIONS.values(), ids=lambda row: row.name)
def test_a_function_is_either_an_operation_or_a_form(row):
    assert (row.form is None) == bool(row.hbir)
    if row.hbir:
        assert row.hbir in HBIR_SPECS and row.real is not None
        assert all(limits_of(f'hbir.{row.hbir}', march) is not None for march in LIMITED)
