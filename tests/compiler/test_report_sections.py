"""What a report says of the input, of test pictures, and of the error of its estimate."""
import json

import pytest

from mmdet_bpu.compiler.compile import compile_program
from mmdet_bpu.compiler.input_stage import input_stage_rows
from mmdet_bpu.compiler.published import PUBLISHED_NASH_E
from mmdet_bpu.compiler.published_errors import likely_range, published_errors
from mmdet_bpu.compiler.report import ReportPicture, ReportPictures

LARGEST_PAGE = 2_000_000  # bytes, of a program as long as a full-size detector's


def test_the_input_stage_is_read_from_a_contract_whatever_it_holds():
    stage = dict(mean=[1.5, 2], future=dict(range='video', planes=[1, 2]), color_order='rgb')
    assert input_stage_rows(dict(preprocessing=stage)) == [
        {'fact': 'color_order', 'value': 'rgb'}, {'fact': 'mean', 'value': '1.5, 2'},
        {'fact': 'future.planes', 'value': '1, 2'}, {'fact': 'future.range', 'value': 'video'}]


@pytest.mark.parametrize('metadata', [{}, dict(preprocessing='resize')])
def test_a_program_without_a_contract_has_no_input_stage(metadata):
    assert input_stage_rows(metadata) == []


def test_every_published_row_has_its_error_and_the_one_of_a_fit_without_it():
    errors = published_errors()
    assert [error.model for error in errors] == list(PUBLISHED_NASH_E)
    for error in errors:
        assert error.predicted_ms == pytest.approx(error.model.latency_ms * (1 + error.off))
        assert abs(error.off_left_out) >= abs(error.off) - 0.001


def test_the_likely_range_undoes_the_worst_errors():
    errors = published_errors()
    least, most = likely_range(10.0, errors)
    assert least * (1 + max(error.off_left_out for error in errors)) == pytest.approx(10)
    assert most * (1 + min(error.off_left_out for error in errors)) == pytest.approx(10)
    assert least < 10 < most


@pytest.fixture
def pages(detector, tmp_path):
    """Function (pictures) -> text of the page and the JSON report."""

    def make(pictures=ReportPictures()):
        result = compile_program(detector, tmp_path / 'model.hbm', 'nash-e', pictures=pictures)
        return result.report_html.read_text(), json.loads(result.report_json.read_text())

    return make


def test_pictures_stand_in_the_page_and_their_captions_in_the_json(pages):
    shown = ReportPictures([ReportPicture('<a>.jpg', '3 boxes & 2', b'\xff\xd8')], 'The first one.')
    page, report = pages(shown)
    assert '<img src="data:image/jpeg;base64,/9g=" alt="&lt;a&gt;.jpg">' in page
    assert '3 boxes &amp; 2' in page and 'The first one.' in page
    assert report['pictures'] == {
        'note': 'The first one.', 'pictures': [{'name': '<a>.jpg', 'caption': '3 boxes & 2'}]}


def test_without_pictures_the_page_says_so(pages):
    page, report = pages()
    assert 'No pictures were asked for.' in page and '<img' not in page
    assert report['pictures']['pictures'] == []


def test_layers_have_a_range_and_the_published_rows_their_error(pages):
    page, report = pages()
    assert '<th class="n">least (us)</th><th class="n">most (us)</th>' in page
    assert all({'off by (%)', 'off by, left out of the fit (%)'} <= set(row)
               for row in report['published']['models'])


def test_what_a_user_named_like_a_mark_of_the_page_is_left_alone(detector, tmp_path):
    detector.metadata['note'] = '<!--layers-->'
    result = compile_program(detector, tmp_path / 'model.hbm', 'nash-e')
    assert '&lt;!--layers--&gt;' in result.report_html.read_text()


def test_the_page_of_a_long_program_stays_small(maker, tmp_path):
    x = maker.input('image', (1, 16, 16, 8))
    for layer in range(24):
        for number in range(48):
            x = maker.op('relu', [x], (1, 16, 16, 8),
                         site=f'decoder.layers.{layer}.cross_attn.part{number}/relu.{number}')
    result = compile_program(maker.finish(x), tmp_path / 'model.hbm', 'nash-e')
    assert len(result.estimate.layers) == 1152
    assert result.report_html.stat().st_size < LARGEST_PAGE
