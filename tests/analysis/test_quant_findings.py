"""The cause of a tensor's error is read off its row."""
import pytest
import torch

from mmdet_bpu.analysis.quant_findings import ADVICE, findings
from mmdet_bpu.analysis.tensor_errors import Grid, TensorErrors

FINE = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))


def row_of(given, scale, site='a/relu.0'):
    grid = Grid(scale, -128, 127)
    errors = TensorErrors(grid)
    rounded = torch.div(given, scale).round().clamp(-128, 127) * scale
    errors.add(0, given, given, rounded)
    return dict(site=site, dtype='int8', **errors.row())


def with_outlier_channel():
    given = FINE.clone()
    given[:, 5] *= 300
    return given


def with_outlier_value():
    given = FINE.clone()
    given[0] = 1e6
    return given


CASES = {
    'outlier channel': (with_outlier_channel(), 300 * 4 / 127),
    'range too wide': (FINE, 1e4 / 127),
    'saturated': (FINE, 0.3 / 127),
    'too few levels': (FINE, 0.9),
    'extremes cut': (torch.cat([FINE.repeat(8, 1), torch.full((1, 16), 1e6)]), 4 / 127),
    'dead': (torch.zeros(4, 4), 1.0),
}


@pytest.mark.parametrize('cause', CASES)
def test_each_cause_is_told_from_the_others(cause):
    given, scale = CASES[cause]
    found, = findings([row_of(given, scale)])
    assert (found['cause'], found['try_first']) == (cause, ADVICE[cause])


def test_a_range_that_one_value_stretches_is_too_wide_for_the_channels():
    """A million in every channel is most of the signal: the ratio alone shows nothing."""
    given = with_outlier_value()
    row = row_of(given, 1e6 / 127)
    assert row['sqnr_db'] > 40
    assert findings([row])[0]['cause'] == 'range too wide'


def test_a_tensor_that_fits_its_range_is_not_named():
    assert findings([row_of(FINE, 4 / 127)]) == []


def test_the_worst_comes_first_and_dead_tensors_last():
    rows = [row_of(*CASES['dead'], site='dead'), row_of(*CASES['too few levels'], site='coarse'),
            row_of(*CASES['range too wide'], site='zero')]
    assert [found['site'] for found in findings(rows)] == ['zero', 'coarse', 'dead']
