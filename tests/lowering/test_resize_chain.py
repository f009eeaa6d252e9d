"""Feature pyramids through the whole chain: resizes are int8, exact or within one LSB."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization import prepare
from tests.toy_chain import run_chain

IMAGE = torch.randn(1, 3, 12, 20, generator=torch.Generator().manual_seed(0))


def pyramid(**resize):
    """Two levels of a feature pyramid: the coarse one is resized and added to the fine one."""

    def body(self, x):
        fine = F.relu(self.stem(x))
        coarse = F.relu(self.down(fine))
        lateral = self.side(fine)
        merged = lateral + F.interpolate(self.top(coarse), size=lateral.shape[2:], **resize)
        return self.out(merged)

    return body


def parts():
    return dict(stem=nn.Conv2d(3, 8, 3, padding=1), down=nn.Conv2d(8, 8, 3, 2, 1),
                side=nn.Conv2d(8, 8, 1), top=nn.Conv2d(8, 8, 1), out=nn.Conv2d(8, 4, 1))


def test_a_nearest_pyramid_adds_the_resized_level_in_the_convolution(toy, calibrated, tmp_path):
    chain = run_chain(toy(pyramid(), **parts()), IMAGE, calibrated, tmp_path)
    assert chain.kinds == ['conv2d'] * 3 + ['resize'] + ['conv2d'] * 2 + ['transpose']
    resize = chain.instructions[3]
    assert (resize.attrs['mode'], list(resize.attrs['step'])) == ('nearest', [2**19, 2**19])
    assert chain.comparison['max_lsb'] <= 1 and not chain.findings
    assert '/interpolate.0' not in chain.report, 'it has no rounding of its own'


@pytest.mark.parametrize('corners', [False, True])
def test_a_bilinear_pyramid_rounds_on_the_scale_of_its_input(toy, calibrated, tmp_path, corners):
    body = pyramid(mode='bilinear', align_corners=corners)
    chain = run_chain(toy(body, **parts()), IMAGE, calibrated, tmp_path)
    row = next(row for row in chain.comparison['ops'] if row['kind'] == 'resize')
    assert row['max_lsb'] <= 1 and row['differing_share'] < 0.05
    assert chain.comparison['max_lsb'] <= 1 and not chain.findings
    assert chain.report['/interpolate.0']['scale'] == chain.report['top/conv2d.0']['scale']


@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
def test_what_a_resize_reads_is_int8_and_the_report_says_why(toy, calibrated, tmp_path, mode):

    def body(self, x):
        hidden = self.stem(x).exp()
        return F.interpolate(hidden, scale_factor=2, mode=mode).sigmoid(), hidden.tanh()

    chain = run_chain(toy(body, stem=nn.Conv2d(3, 4, 1)), IMAGE, calibrated, tmp_path)
    exp = chain.report['/exp.0']
    assert exp['dtype'] == 'int8'
    assert exp['rule'] == ('template: /interpolate.0 reads int8 only, which the path of output '
                           'output_1 does not change')
    assert chain.report['/sigmoid.0']['dtype'] == 'int16'


@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
def test_a_rule_that_widens_what_a_resize_reads_is_refused(toy, mode):
    model = toy(lambda self, x: F.interpolate(x.exp(), scale_factor=2, mode=mode) * x.mean())
    with pytest.raises(BpuError, match=r'qconfig\[0\] gives what /interpolate.0 reads int16: '
                       rf'resize_{mode} takes int8 only; leave its input int8'):
        prepare(model, dict(input_shape=(4, 6), qconfig=[dict(op='exp', dtype='int16')]))
