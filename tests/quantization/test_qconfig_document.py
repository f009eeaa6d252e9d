"""The examples of docs/qconfig.md do what the page says, on a stock Deformable DETR."""
import re
from pathlib import Path

import pytest

from mmdet_bpu.quantization import model_report, prepare, quantization_of

PAGE = (Path(__file__).resolve().parents[2] / 'docs' / 'qconfig.md').read_text()
EXAMPLES = re.findall(r'^```python\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope='module')
def ruled(small_detector):
    """Function (number of an example) -> {site: report row}, prepared detector."""

    def build(number):
        names = {}
        exec(EXAMPLES[number], names)  # as a config is read
        model = small_detector('-refine-twostage')
        prepare(model, dict(input_shape=(64, 96), qconfig=names['qconfig'],
                            calibration=dict(observer='minmax')))
        return {row['site']: row for row in model_report(model)}, model

    return build


def test_there_are_three_examples():
    assert len(EXAMPLES) == 3


def test_a_rule_by_the_site(ruled):
    report, _ = ruled(0)
    layer = {site: row for site, row in report.items() if site.startswith('backbone.layer4')}
    assert layer and {row['dtype'] for row in layer.values()} == {'int16'}
    assert all(row['rule'] == 'qconfig[0]' for row in layer.values())


def test_rules_by_several_fields_in_their_order(ruled):
    report, _ = ruled(1)
    chosen = {site: (row['dtype'], row['rule']) for site, row in report.items()
              if 'qconfig' in row['rule']}
    assert set(chosen.values()) == {('int16', 'qconfig[0]'), ('int8', 'qconfig[1]')}
    for site, (dtype, rule) in chosen.items():
        assert report[site]['op'] == 'matmul'
        assert (dtype == 'int16') == site.startswith('decoder.layers.1.'), site


def test_a_scale_and_an_observer(ruled):
    report, model = ruled(2)
    assert report['image']['scale'] == pytest.approx(0.0207)
    convolutions = [site for site, row in report.items() if row['rule'] == 'qconfig[1]']
    assert convolutions
    assert {quantization_of(model).quantizer(site).observer.statistics.bins for site in convolutions} == {4096}
