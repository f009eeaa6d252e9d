"""compile_hbm: one call from a program to the file and its report."""
import json
from html.parser import HTMLParser

import pytest
import torch

from mmdet_bpu.backends import hbdk4
from mmdet_bpu.backends.compile import compile_hbm
from mmdet_bpu.compiler.report_html import human_bytes
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.program.hbm_file import read_hbm

ROWS = [{'site': '<stem>', 'dtype': 'si8', 'scale': 0.05, 'rule': 'default'},
        {'site': 'weight', 'dtype': 'si8', 'scale': [0.5, 0.25] * 32, 'rule': None}]


@pytest.fixture
def result(detector, tmp_path):
    return compile_hbm(detector, tmp_path / 'model.hbm', 'nash-m', ROWS, 'sim')


class Page(HTMLParser):
    """Collects what a browser would fetch, the headings and the rows of each table."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.open, self.rows, self.table = [], [], {}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.fetched += [attrs[key] for key in ('src', 'href', 'srcset') if key in attrs]
        if tag not in ('meta', 'input', 'line', 'rect', 'br'):
            self.open.append(tag)
        if tag == 'table':
            self.table = attrs.get('id')
            self.rows[self.table] = 0
        if tag == 'tr' and 'tbody' in self.open:
            self.rows[self.table] += 1

    def handle_endtag(self, tag):
        if tag in ('line', 'rect'):
            return
        assert self.open.pop() == tag


def test_the_file_runs_and_the_result_describes_it(detector, result):
    simulator = HbmSimulator(result.path)
    outputs = simulator.run({'image': torch.zeros(1, 16, 16, 3, dtype=torch.int8)})
    assert set(outputs) == set(detector.outputs)
    assert result.backend == 'sim' and result.seconds > 0
    network, = read_hbm(result.path).networks
    assert network.performance == result.estimate.as_vendor_dict()
    assert result.estimate.arena_bytes == network.plan.arena_bytes
    assert result.estimate.memory_bytes > result.estimate.constant_bytes > 0
    assert result.vendor_report == {}
    assert [finding.level for finding in result.findings] == ['note']


def test_the_json_report_has_the_vendor_s_summary_fields(detector, result):
    report = json.loads(result.report_json.read_text())
    assert {'performance', 'DDR access data', 'layer details', 'model info'} <= set(
        report['summary'])
    assert len(report['summary']['layer details']) == len(detector.instructions)
    assert report['quantization'] == ROWS
    assert report['contract']['inputs'][0]['name'] == 'image'
    assert report['contract']['metadata']['colour order'] == 'RGB'


def test_the_page_is_well_formed_and_fetches_nothing(detector, result):
    text = result.report_html.read_text()
    page = Page(text)
    assert page.open == [] and page.fetched == []
    assert '@import' not in text and 'url(' not in text and '://' not in text
    assert page.rows['layers'] == len(detector.instructions)
    assert page.rows['findings'] == 1 and page.rows['quantization'] == 2
    assert text.count('live, ') == text.count('class="op"') == len(detector.instructions)
    assert '<!--' not in text.replace('<!DOCTYPE', '')


def test_scales_per_channel_are_shown_as_a_range(result):
    assert '64 values, 0.25 to 0.5' in result.report_html.read_text()


def test_what_users_name_is_escaped(result):
    assert '&lt;stem&gt;' in result.report_html.read_text()


def test_equal_input_gives_equal_files(detector, result, tmp_path):
    (tmp_path / 'again').mkdir()
    again = compile_hbm(detector, tmp_path / 'again' / 'model.hbm', 'nash-m', ROWS, 'sim')
    for name in ('path', 'report_json', 'report_html'):
        assert getattr(again, name).read_bytes() == getattr(result, name).read_bytes()


def test_an_illegal_program_is_refused_before_anything_is_written(maker, tmp_path):
    maker.op('add', [maker.input('a', (4,), 'si8'), maker.input('b', (4,), 'si16')], (4,),
             site='decoder/add.3')
    with pytest.raises(BpuError, match='decoder/add.3'):
        compile_hbm(maker.finish('v2'), tmp_path / 'model.hbm', 'nash-e', backend='sim')
    assert not list(tmp_path.iterdir())


def test_an_unknown_march_or_backend_is_refused(detector, tmp_path):
    with pytest.raises(BpuError, match='unknown march'):
        compile_hbm(detector, tmp_path / 'model.hbm', 'x9')
    with pytest.raises(BpuError, match="unknown backend 'tpu'"):
        compile_hbm(detector, tmp_path / 'model.hbm', 'nash-e', backend='tpu')


@pytest.mark.parametrize('nbytes, shown', [
    (0, '0 B'), (999, '999 B'), (1500, '1.5 kB'), (26_080_000, '26.1 MB'), (6.4e9, '6.4 GB')])
def test_sizes_are_shown_in_units_of_a_thousand(nbytes, shown):
    assert human_bytes(nbytes) == shown


def test_with_the_vendor_s_compiler_both_files_are_made(detector, tmp_path, monkeypatch):
    def compile_for_board(hbir_text, path, march, perf_dir, camera):
        assert camera is None
        path.write_bytes(hbir_text.encode())
        return {'summary': {'performance': {'FPS': 4.5}}, 'march': march}

    monkeypatch.setattr(hbdk4, 'available', lambda: True)
    monkeypatch.setattr(hbdk4, 'compile_for_board', compile_for_board)
    path = tmp_path / 'model.hbm'
    result = compile_hbm(detector, path, 'nash-e', backend='auto', hbir_text='module {}')
    assert result.backend == 'hbdk4' and path.read_text() == 'module {}'
    assert result.vendor_report['summary']['performance'] == {'FPS': 4.5}
    assert result.simulator_path == tmp_path / 'model.sim.hbm'
    assert HbmSimulator(result.simulator_path).inputs[0].name == 'image'
    with pytest.raises(BpuError, match='export it'):
        compile_hbm(detector, path, 'nash-e', backend='hbdk4')
    assert compile_hbm(detector, path, 'nash-e').backend == 'sim'
