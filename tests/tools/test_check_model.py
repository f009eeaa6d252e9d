"""tools/check_model.py"""
import json

import pytest


def test_a_model_that_can_be_deployed(tool, digits_config, tmp_path):
    done = tool('check_model.py', digits_config, '--out', tmp_path / 'check.json')
    assert done.code == 0, done.err
    assert 'it can be deployed, with the warnings above' in done.out
    check = json.loads((tmp_path / 'check.json').read_text())
    assert [recipe['stage'] for recipe in check['recipes']] == ['float', 'calibration', 'qat']
    assert '\nrecipe of stage qat: QATLoop, 6 epochs\n  optimizer: AdamW, lr 1e-05' in done.out
    assert check['counts']['error'] == 0 and check['march'] == 'nash-e'
    topk = [found for found in check['findings'] if found['op'] == 'hbir.topk']
    assert topk[0]['unit'] == 'the scalar unit' and topk[0]['site']
    grids = [row for row in check['sites'] if row['rule'] == 'template: path of a sampling grid']
    assert grids and {row['dtype'] for row in grids} == {'int16'}
    assert grids[0]['site'] in done.out
    latency = check['estimate']['performance']['latency (ms)']
    assert f'estimated on nash-e, one core: {latency:.3f} ms' in done.out
    assert len(check['dearest']) == 3 and check['dearest'][0]['ways']
    assert f'cheaper: {check["dearest"][0]["ways"][0]["change"]}' in done.out


def test_a_checkpoint_with_scales_is_checked_as_it_is(tool, digits_config, checkpoints):
    done = tool('check_model.py', digits_config, '--checkpoint', checkpoints['calibration'],
                '--march', 'nash-p', '--cores', '4')
    assert done.code == 0, done.err
    assert 'integer instructions on nash-p' in done.out and '\n4 cores: ' in done.out


@pytest.fixture
def config_with(digits_config, tmp_path):
    """Function (lines) -> a config of those lines over the digits detector's."""

    def write(lines):
        path = tmp_path / 'changed.py'
        path.write_text(f'_base_ = {str(digits_config)!r}\n{lines}\n')
        return path

    return write


def test_a_rule_that_matches_nothing_and_the_sites_that_it_could_match(tool, config_with):
    config = config_with("bpu = dict(qconfig=[dict(site='enc.*', dtype='int16')])")
    done = tool('check_model.py', config)
    assert (done.code, 'bpu.qconfig[0] matches nothing' in done.err) == (2, True)
    done = tool('check_model.py', config, '--sites')
    assert done.code == 0, done.err
    assert 'encoder.layers.0.norms.1/layer_norm' in done.out


def test_a_rule_is_named_where_it_matched(tool, config_with):
    rule = "dict(site='neck*', dtype='int16')"
    done = tool('check_model.py', config_with(f'bpu = dict(qconfig=[{rule}])'))
    assert done.code == 0, done.err
    assert 'int16  qconfig[0]' in done.out


def test_an_op_without_integer_form_is_refused_with_its_site(tool, config_with):
    act = "act_cfg=dict(_delete_=True, type='RReLU')"
    done = tool('check_model.py', config_with(f'model = dict(neck=dict({act}))'))
    assert (done.code, 'Traceback' in done.err) == (2, False)
    assert 'neck.convs.0.activate' in done.err and 'rrelu' in done.err.lower()


@pytest.mark.parametrize('name, arguments', [
    ('check_model.py', []), ('train.py', ['--stage', 'float']), ('train.py', ['--stage', 'qat'])])
def test_a_detector_of_several_networks_is_refused_before_anything_is_built(
        tool, name, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tool(name, 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', *arguments)
    assert done.code == 2
    assert done.err.splitlines()[-1] == (
        'error: FasterRCNN cannot be deployed: it is a two-stage detector: NMS and pooling of its '
        'proposals lie between its networks, and one network can be deployed')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('arguments, words', [
    (['--march', 'bayes'], "unknown march 'bayes'"),
    (['--cores', '2'], '--cores: expected 1 on nash-e, found 2'),
    (['--march', 'nash-p', '--cores', 'all'], "expected a positive whole number, found 'all'"),
    (['--checkpoint', 'none.pth'], 'none.pth not found'),
    (['--cfg-options', 'bpu.marsh=1'], 'did you mean bpu.march?')])
def test_bad_input(tool, digits_config, arguments, words):
    done = tool('check_model.py', digits_config, *arguments)
    assert (done.code, words in done.err, 'Traceback' in done.err) == (2, True, False)
