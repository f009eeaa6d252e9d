"""The guide of docs/quantization.md on a model that was broken on purpose: found, named, repaired."""
import pytest
import torch
from torch import nn

from mmdet_bpu.analysis.quant_comparison import QuantComparison
from mmdet_bpu.analysis.quant_findings import findings
from mmdet_bpu.lowering.export import lower_networks
from mmdet_bpu.quantization import prepare, quantized_graphs
from tests.stock_detectors import calibrated  # noqa: F401

SHAPE = (40, 48)
IMAGES = torch.randn(3, 3, *SHAPE, generator=torch.Generator().manual_seed(0))
FIRST, SECOND = 'first/relu.0', 'second/relu.0'


class Stage(nn.Module):
    """A convolution and a relu."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x):
        return torch.relu(self.conv(x))


def chain(detector, image):
    """Two stages; what lies in the corner of the first one's result is read by nobody."""
    x = detector.first(image) + detector.spike
    return detector.last(detector.second(x[:, :, 2:, 2:]))


def outlier_channel(model):
    """One channel 512 times as large, and read 512 times as weakly: the same float model."""
    with torch.no_grad():
        for tensor in (model.first.conv.weight, model.first.conv.bias):
            tensor[3] *= 512
        model.second.conv.weight[:, 3] /= 512


def dead_channel(model):
    with torch.no_grad():
        model.first.conv.weight[3], model.first.conv.bias[3] = 0, 0


def range_of_a_million(model):
    model.spike[:, :, 0, 0] = 1e6


def range_of_a_thousand(model):
    model.spike[:, :, 0, 0] = 1000


@pytest.fixture
def outcome(toy, calibrated):  # noqa: F811
    """Function (break, calibration settings, rules) -> tensors, findings and the output's SQNR, dB."""

    def run(damage, **bpu):
        torch.manual_seed(1)
        wide = damage in (range_of_a_million, range_of_a_thousand)
        model = toy(chain if wide else plain_chain, first=Stage(3, 8),
                    second=Stage(8, 8), last=nn.Conv2d(8, 4, 1))
        model.register_buffer('spike', torch.zeros(1, 8, *SHAPE))
        damage(model)
        calibration = {'observer': 'minmax', **bpu.pop('calibration', {})}
        prepare(model, dict(input_shape=SHAPE, calibration=calibration, **bpu))
        networks = quantized_graphs(calibrated(model, IMAGES))
        comparison = QuantComparison(lower_networks(networks).convert(), networks[0].rows)
        for image in IMAGES:
            comparison.add(image.permute(1, 2, 0).unsqueeze(0).contiguous())
        rows = comparison.tensors()
        output, = comparison.output_rows()
        return {row['site']: row for row in rows}, findings(rows), output['sqnr_db']

    return run


def plain_chain(detector, image):
    return detector.last(detector.second(detector.first(image)))


def test_a_sound_model_has_nothing_to_look_at(outcome):
    _, found, ratio = outcome(lambda model: None)
    assert found == [] and ratio > 25


def test_an_outlier_channel_is_named(outcome):
    rows, found, ratio = outcome(outlier_channel)
    assert [(row['site'], row['cause']) for row in found] == [(FIRST, 'outlier channel')]
    assert 'equalize' in found[0]['try_first'] and 'int16' in found[0]['try_first']
    assert rows[FIRST]['sqnr_db'] > 30 > 10 > rows[FIRST]['channel_sqnr_db']
    assert ratio < 15


def test_an_outlier_channel_is_repaired_by_equalization(outcome):
    _, found, ratio = outcome(outlier_channel, calibration=dict(equalize=True))
    assert found == [] and ratio > 25


def test_int16_repairs_the_tensor_but_not_the_int8_weights_that_read_it(outcome):
    _, _, broken = outcome(outlier_channel)
    _, found, ratio = outcome(outlier_channel, qconfig=[dict(site=FIRST, dtype='int16')])
    assert found == [] and broken + 5 < ratio < 25


def test_a_dead_channel_is_counted_and_costs_nothing(outcome):
    rows, found, ratio = outcome(dead_channel)
    assert rows[FIRST]['dead_channels'] == 1 and found == [] and ratio > 25


SPIKED = 'add.0'
PERCENTILE = dict(type='percentile', percentile=99.9)
RANGE_REPAIRS = {
    'percentile': (range_of_a_thousand, dict(observer=PERCENTILE)),
    'int16 and percentile': (range_of_a_million, dict(dtype='int16', observer=PERCENTILE)),
    'fixed scale': (range_of_a_million, dict(scale=0.02)),
}


def test_a_range_of_a_million_is_named(outcome):
    rows, found, ratio = outcome(range_of_a_million)
    site, = (site for site in rows if site.endswith(SPIKED))
    assert (found[0]['site'], found[0]['cause']) == (site, 'range too wide')
    assert rows[site]['zeroed'] > 0.9
    assert ratio < 10


@pytest.mark.parametrize('repair', RANGE_REPAIRS)
def test_a_range_of_a_few_values_is_repaired_by(repair, outcome):
    damage, rule = RANGE_REPAIRS[repair]
    _, broken, before = outcome(damage)
    _, found, ratio = outcome(damage, qconfig=[dict(site='*add.0', **rule)])
    assert broken[0]['cause'] == 'range too wide'
    assert [row['cause'] for row in found] == ['extremes cut'] and ratio > 25 > before + 8


def test_a_percentile_is_no_finer_than_the_histogram_that_it_is_read_off(outcome):
    """2,048 bins up to 2**20: all other values lie in the first."""
    _, found, _ = outcome(range_of_a_million, qconfig=[dict(site='*add.0', observer=PERCENTILE)])
    assert found[0]['cause'] == 'range too wide'
