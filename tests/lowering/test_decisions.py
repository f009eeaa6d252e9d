"""What the quantized graph decides is what the passes find; a disagreement is an error at its site."""
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.passes import conversion_of
from mmdet_bpu.hbir.passes.conversion import Form
from mmdet_bpu.lowering.export import lower_networks
from mmdet_bpu.quantization import prepare, quantized_graphs

IMAGE = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def _body(self, x):
    x = self.stem(x)
    y = F.relu(self.residual(x) + x)
    z = torch.cat([torch.sigmoid(y) * y, F.relu(x + y)], 1)
    return self.out(z.permute(0, 2, 3, 1))


@pytest.fixture
def lowered(toy, calibrated):
    """A residual, a swish written out, an addition before a relu, and an accumulator as output."""
    model = toy(_body, stem=nn.Conv2d(3, 4, 1), residual=nn.Conv2d(4, 4, 3, 1, 1),
                out=nn.Linear(8, 2))
    settings = dict(input_shape=IMAGE.shape[-2:], calibration=dict(observer='minmax'))
    return lower_networks(quantized_graphs(calibrated(prepare(model, settings), IMAGE)))


def by_site(lowered):
    return {decision.site.strip('/'): decision for decision in lowered.decisions}


def test_every_value_has_the_form_that_it_was_trained_in(lowered):
    """The list is what a reader of the body above writes down."""
    assert {site: (decision.form, decision.relu) for site, decision in by_site(lowered).items()} == {
        'stem/conv2d.0': (Form.PRODUCT, False),
        'residual/conv2d.0': (Form.FLOAT, False),
        'add.0': (Form.FLOAT, False),
        'relu.0': (Form.PRODUCT, True),
        'sigmoid.0': (Form.FLOAT, False),
        'mul.0': (Form.TABLE, False),
        'add.1': (Form.FLOAT, False),
        'relu.1': (Form.ROUNDED, True),
        'cat.0': (Form.CARRIED, False),
        'permute.0': (Form.CARRIED, False),
        'out/linear.0': (Form.PRODUCT, False),
    }
    assert by_site(lowered)['relu.0'].residual is by_site(lowered)['stem/conv2d.0'].value
    assert by_site(lowered)['mul.0'].source is by_site(lowered)['relu.0'].value


def test_the_passes_find_the_same(lowered):
    assert len(lowered.convert().decisions) == len(lowered.decisions) == 11


@pytest.mark.parametrize('variant', ['', 'refine', 'refine-twostage'])
def test_a_whole_detector_agrees(small_detector, variant):
    networks = quantized_graphs(small_detector(variant).model)
    lowered = lower_networks(networks)
    forms = {decision.form for decision in lowered.decisions}
    assert forms == set(Form)
    lowered.convert()


def disagreeing(lowered, site, **changes):
    decision = by_site(lowered)[site]
    return [replace(d, **changes) if d is decision else d for d in lowered.decisions]


@pytest.mark.parametrize('site, changes, message', [
    ('relu.1', dict(form=Form.TABLE), 'trained as the end of a table, but its HBIR reads as an '
                                      'operation and its rounding'),
    ('relu.1', dict(relu=False), 'reads as another one of that form'),
    ('relu.0', dict(residual=None), 'reads as another one of that form'),
    ('relu.0', dict(form=Form.ROUNDED), 'trained as an operation and its rounding, but its HBIR '
                                        'reads as a product and its rounding'),
    ('mul.0', dict(form=Form.ROUNDED), 'reads as the end of a table'),
    ('add.0', dict(form=Form.CARRIED), 'reads as a value that is never integers'),
    ('cat.0', dict(factor=0.5), 'reads as another one of that form'),
    ('permute.0', dict(form=Form.FLOAT), 'reads as the integers of another value'),
    ('out/linear.0', dict(form=Form.ROUNDED), 'reads as a product and its rounding'),
])
def test_another_decision_is_an_error_at_its_site(lowered, site, changes, message):
    with pytest.raises(BpuError, match=f'{re.escape(site)}: .*{message}'):
        conversion_of(lowered.module, None, disagreeing(lowered, site, **changes))


@pytest.mark.parametrize('site, field, other', [
    ('relu.0', 'residual', 'relu.1'), ('mul.0', 'source', 'stem/conv2d.0')])
def test_another_operand_is_an_error_at_its_site(lowered, site, field, other):
    changed = disagreeing(lowered, site, **{field: by_site(lowered)[other].value})
    with pytest.raises(BpuError, match=f'{re.escape(site)}: .*another one of that form'):
        conversion_of(lowered.module, None, changed)


def test_a_module_without_decisions_is_converted_by_its_patterns_alone(lowered):
    assert str(conversion_of(lowered.module).result) == str(lowered.convert().result)
