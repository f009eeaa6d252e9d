"""The command compare on a tiny trained detector: what it writes, and what it refuses."""
import base64
import contextlib
import csv
import io
import json
import runpy
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from mmdet_bpu import apis
from mmdet_bpu.analysis.compare_command import summary
from mmdet_bpu.analysis.comparison_page import data_uri
from mmdet_bpu.compiler.compile import compile_program
from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.quantization import set_quant_state
from tests.vendor_stand_in import COMPUTING, installed

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analyze_quant.py'
IMAGES = 3


def run(*arguments):
    """Exit code, stdout and stderr of the command."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    former, sys.argv = sys.argv, ['analyze_quant.py', *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(str(TOOL), run_name='__main__')
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = former
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope='module')
def compared(trained, tiny_config, tmp_path_factory):
    """Folder that the command wrote for the tiny QAT checkpoint against the float one, and its stdout."""
    folder = tmp_path_factory.mktemp('analysis') / 'made' / 'compared'
    code, out, err = run('compare', tiny_config, trained / 'tiny_qat' / 'epoch_2.pth', '--out', folder,
                         '--images', IMAGES, '--int-images', 1, '--score-thr', 0.01)
    assert code == 0, err
    return folder, out


@pytest.fixture(scope='module')
def report(compared):
    return json.loads((compared[0] / 'compare.json').read_text())


class Page(HTMLParser):
    """Tags that are open, addresses that are named, text."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.words, self.figures = [], [], [], 0

    def handle_starttag(self, tag, attrs):
        self.figures += tag == 'figure'
        self.addresses += [value for name, value in attrs if name in ('src', 'href')]
        if tag not in ('meta', 'img', 'input'):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)


def test_every_tensor_has_a_row_in_the_graph_s_order(report, trained, staged, tmp_path):
    model = apis.load_quantized(staged('qat', tmp_path), str(trained / 'tiny_qat' / 'epoch_2.pth'))
    expected = [row for network in model.quant.networks
                for row in network.with_scales(lambda name: (1.0, True)).rows
                if row['dtype'] != 'int32']
    assert [(row['site'], row['dtype'], row['op'], row['rule']) for row in report['tensors']] == \
        [(row['site'], row['dtype'], row['op'], row['rule']) for row in expected]
    assert [row['index'] for row in report['tensors']] == list(range(len(expected)))
    assert {row['part'] for row in report['tensors']} == {
        'image', 'backbone', 'neck', 'encoder', 'decoder', 'bbox_head', 'network'}


def boxes_of(model, cfg, count):
    """Deployed boxes of the first validation images by the detector itself."""
    found = []
    for batch in Runner.build_dataloader(cfg.val_dataloader, seed=0):
        batch = model.data_preprocessor(batch, False)
        with torch.no_grad():
            found.append(model(batch['inputs'], batch['data_samples'], mode='tensor')[1][-1])
    return torch.cat(found)[:count].double()


def ratio_of(x, y):
    return 10 * torch.log10(x.square().sum() / (x - y).square().sum()).item()


def test_the_error_of_an_output_is_that_of_the_detector_itself(report, trained, staged, tmp_path):
    cfg = staged('qat', tmp_path)
    model = apis.load_quantized(cfg, str(trained / 'tiny_qat' / 'epoch_2.pth'))
    set_quant_state(model, 'off')
    floats = boxes_of(model, cfg, IMAGES)
    set_quant_state(model, 'quantize')
    row = next(row for row in report['outputs'] if row['output'] == 'bbox_preds')
    # Roundings flip where float32 sums are taken in another order.
    assert row['sqnr_db'] == pytest.approx(ratio_of(floats, boxes_of(model, cfg, IMAGES)), abs=0.5)


def test_a_float_checkpoint_may_be_the_other_side(trained, staged, tmp_path):
    """The stock float detector is the oracle."""
    found = apis.compare(
        staged('int', tmp_path), trained / 'tiny_qat' / 'epoch_2.pth', tmp_path / 'out',
        float_checkpoint=trained / 'tiny_float' / 'epoch_2.pth', images=1, int_images=0)
    cfg = staged('qat', tmp_path)
    quantized = apis.load_quantized(cfg, str(trained / 'tiny_qat' / 'epoch_2.pth'))
    stock = apis.build_detector(cfg)
    stock.load_state_dict(torch.load(trained / 'tiny_float' / 'epoch_2.pth')['state_dict'])
    row = next(row for row in found['outputs'] if row['output'] == 'bbox_preds')
    assert row['sqnr_db'] == pytest.approx(
        ratio_of(boxes_of(stock, cfg, 1), boxes_of(quantized, cfg, 1)), abs=0.5)
    assert found['tensors'][20]['accumulated_sqnr_db'] < found['tensors'][20]['sqnr_db'] - 3


def test_the_terminal_shows_the_worst_tensors_the_outputs_and_the_images(compared, report):
    out = compared[1]
    worst = sorted((row for row in report['tensors'] if row['sqnr_db'] is not None),
                   key=lambda row: row['sqnr_db'])[:10]
    _, _, table = out.partition('max LSB\n')
    assert [line.split()[0] for line in table.splitlines()[:10]] == [row['site'] for row in worst]
    assert 'float to quantized, bbox_preds' in out and 'integers against quantized, end to end, cls_scores' in out
    assert f'of {IMAGES} images lost or won a box' in out
    assert max(row['int_max_lsb'] or 0 for row in report['tensors']) <= 1


def test_the_table_for_spreadsheets_has_a_line_per_tensor(compared, report):
    with open(compared[0] / 'compare.csv', newline='') as file:
        lines = list(csv.DictReader(file))
    assert [line['site'] for line in lines] == [row['site'] for row in report['tensors']]
    assert float(lines[3]['sqnr_db']) == report['tensors'][3]['sqnr_db']
    assert lines[0]['shape'] == '1 x 64 x 64 x 3'


def test_the_page_is_whole_needs_nothing_and_holds_the_worst_images(compared, report):
    text = (compared[0] / 'compare.html').read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert all(address.startswith('data:image/jpeg;base64,') for address in page.addresses)
    assert len(page.addresses) == IMAGES
    words = ' '.join(page.words)
    assert all(row['site'] in words for row in report['tensors'])
    assert page.figures == IMAGES + len(report['histograms'])
    assert '://' not in text


def test_histograms_are_those_of_the_worst_tensors_and_count_every_element(report):
    worst = sorted((row for row in report['tensors'] if row['sqnr_db'] is not None),
                   key=lambda row: row['sqnr_db'])[0]
    plain = report['histograms'][str(worst['index'])]
    elements = IMAGES * torch.Size(worst['shape']).numel()
    assert sum(plain['before']) == sum(plain['after']) == elements


@pytest.fixture(scope='module')
def artifacts(trained, staged, tmp_path_factory):
    """Stage -> model.hbm of that tiny checkpoint."""
    folder, made = tmp_path_factory.mktemp('artifacts'), {}
    for stage, epoch in (('qat', 2), ('calibration', 1)):
        exported = apis.export_hbir(staged(stage, folder / 'work'),
                                    str(trained / f'tiny_{stage}' / f'epoch_{epoch}.pth'))
        made[stage] = folder / f'{stage}.hbm'
        compile_program(program_from_module(exported.integer), made[stage], 'nash-e')
    return made


def test_the_compiled_model_of_the_checkpoint_differs_nowhere(trained, staged, artifacts, tmp_path):
    found = apis.compare(staged('int', tmp_path), trained / 'tiny_qat' / 'epoch_2.pth',
                         tmp_path / 'out', against=artifacts['qat'], images=2, int_images=0)
    assert [(row['output'], row['max_difference'], row['differing_share'])
            for row in found['against_outputs']] == [('cls_scores', 0, 0), ('bbox_preds', 0, 0)]
    assert f'{artifacts["qat"]} against integers, bbox_preds: largest difference 0 (0 LSB), 0.00% of ' \
        'the elements differ' in summary(found)


def test_an_artefact_that_a_camera_feeds_is_given_its_bytes(trained, staged, tmp_path):
    """Whatever the stage of the config: pictures for the checkpoint, planes for the artefact."""
    kept = torch.load(trained / 'tiny_qat' / 'epoch_2.pth', weights_only=True)['state_dict']
    checkpoint = str(tmp_path / 'without_its_settings.pth')
    torch.save(dict(meta=dict(bpu_stage='qat'), state_dict=kept), checkpoint)

    def camera(stage):
        cfg = staged(stage, tmp_path / 'work')
        cfg.bpu.input_format = 'nv12'
        return cfg

    exported = apis.export_hbir(camera('qat'), checkpoint)
    apis.write_export(exported, tmp_path)
    hbm = tmp_path / 'model.hbm'
    compile_program(program_from_module(exported.integer), hbm, 'nash-e')
    found = apis.compare(camera('int'), checkpoint, tmp_path / 'out', against=hbm, images=2,
                         int_images=0)
    assert [row['differing_share'] for row in found['against_outputs']] == [0, 0]
    stages = apis.compare_stages(camera('qat'), checkpoint, tmp_path / 'model.int.mlir', hbm,
                                 images=2, qat_images=1)
    assert stages['int_equals_hbm'] is True and stages['qat_vs_int']['max_lsb'] <= 1
    assert 0 <= apis.evaluate(camera('hbm'), hbm, str(tmp_path / 'run'))['coco/bbox_mAP'] <= 1
    with pytest.raises(BpuError, match='it takes nv12, full range, bt601, but .* says pictures'):
        apis.evaluate(staged('hbm', tmp_path / 'other'), hbm)


QAT = 'tiny_qat/epoch_2.pth'
REFUSED = {
    'a float checkpoint': (dict(checkpoint='tiny_float/epoch_2.pth'),
                           "is of stage 'float'; expected 'calibration' or 'qat' to compare"),
    'a quantized one as float': (dict(float_checkpoint=QAT), "is of stage 'qat'; expected 'float'"),
    'no checkpoint': (dict(checkpoint='no.pth'), 'no.pth not found'),
    'no image': (dict(images=0), 'parameter images: expected 1 or more, found 0'),
    'fewer than none': (dict(int_images=-1), 'parameter int_images: expected 0 or more, found -1'),
    'no score': (dict(score_thr=2.0), 'parameter score_thr: expected a number from 0 to 1, found 2.0'),
    "another model's integers": (dict(against='calibration'), 'parameter against: its outputs are not '
                                 'those of the checkpoint: cls_scores is si32'),
    'no artefact': (dict(against='no.hbm'), 'no.hbm not found'),
    'no data': (dict(val_dataloader__dataset__ann_file='absent.json'), 'field val_dataloader: '),
}


@pytest.mark.parametrize('case', REFUSED)
def test_bad_input_is_refused_and_nothing_is_written(case, trained, staged, artifacts, tmp_path):
    given, words = REFUSED[case]
    given = {'checkpoint': QAT, **given}
    overrides = {name: given.pop(name) for name in list(given) if '__' in name}
    for name in ('checkpoint', 'float_checkpoint'):
        if name in given:
            given[name] = str(trained / given[name])
    given['against'] = artifacts.get(given.get('against'), given.get('against'))
    with pytest.raises(BpuError) as refused:
        apis.compare(staged('int', tmp_path, **overrides), out_dir=tmp_path / 'out', **given)
    assert words in str(refused.value) and '\n' not in str(refused.value)
    assert not (tmp_path / 'out').exists()


def test_a_message_names_the_option(trained, tiny_config, tmp_path):
    code, out, err = run('compare', tiny_config, trained / QAT, '--out', tmp_path / 'out', '--images', 0)
    assert (code, out, err) == (2, '', 'error: --images: expected 1 or more, found 0\n')


def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_is_read(tmp_path, tiny_config):
    (tmp_path / 'file').write_text('')
    code, _, err = run('compare', tiny_config, 'no.pth', '--out', tmp_path / 'file')
    assert (code, err) == (2, f'error: --out: expected a folder, found the file {tmp_path / "file"}\n')


def test_a_drawn_picture_is_a_jpeg_in_its_address():
    picture = np.full((20, 30, 3), 90, np.uint8)
    kind, _, data = data_uri(picture).partition(',')
    assert kind == 'data:image/jpeg;base64'
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == picture.shape and abs(int(decoded.mean()) - 90) <= 1


@pytest.fixture
def vendor(tmp_path):
    with installed(tmp_path / 'site', COMPUTING) as compiler:
        compiler.INTEGERS = True
        yield compiler


def test_the_vendor_s_network_is_held_against_the_integers(vendor, trained, staged, tmp_path):
    vendor.OFF_BY = 3
    found = apis.compare(staged('int', tmp_path), trained / QAT, tmp_path / 'out', against='hbdk4',
                         images=1, int_images=0)
    assert [(row['output'], row['max_lsb'], row['differing_share'])
            for row in found['against_outputs']] == [('cls_scores', None, 0), ('bbox_preds', 3, 1 / 40)]
    assert vendor.MARCHES == ['nash-e']


def test_the_vendor_s_network_is_evaluated_as_any_stage(vendor, trained, staged, tmp_path):
    metrics = [apis.evaluate(staged(stage, tmp_path / stage), trained / QAT)
               for stage in ('int', 'hbdk4')]
    plain = [{name: value for name, value in each.items() if '/' not in name.partition('/')[2]}
             for each in metrics]
    assert plain[0] == plain[1] and len(plain[0]) >= 6
    assert metrics[1]['hbdk4/coco/bbox_mAP'] == metrics[0]['int/coco/bbox_mAP']


def test_without_the_vendor_s_package_both_are_refused(trained, staged, tmp_path):
    with pytest.raises(BpuError, match="parameter against='hbdk4': the package hbdk4 is not installed"):
        apis.compare(staged('int', tmp_path), trained / QAT, tmp_path / 'out', against='hbdk4')
    with pytest.raises(BpuError, match="parameter stage='hbdk4': the package hbdk4 is not installed"):
        apis.evaluate(staged('hbdk4', tmp_path), trained / QAT)
