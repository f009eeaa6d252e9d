"""tools/export_hbir.py and tools/deploy_bpu.py"""
import json

import pytest

EXPORTED = ['model.hbir.mlir', 'model.int.mlir', 'model.quant.json']


def test_deployment_holds_every_file_and_says_where_it_runs(deployment):
    folder, done = deployment
    assert sorted(path.name for path in folder.iterdir()) == sorted(EXPORTED + [
        'model.deploy.json', 'model.hbm', 'model.report.html', 'model.report.json'])
    for words in ('ms, ', 'MB per image', 'MiB, weights and activations', '0 errors', 'hbir.topk',
                  'runs in the simulator of mmdet_bpu, not on a board', '--backend hbdk4',
                  f'{folder}/model.deploy.json'):
        assert words in done.out


def test_the_contract_says_how_to_feed_and_read_the_network(deployment):
    contract = json.loads((deployment[0] / 'model.deploy.json').read_text())
    image, = contract['inputs']
    assert (image['name'], image['shape'], image['dtype']) == ('image', [1, 128, 128, 3], 'si8')
    assert image['scale'] > 0
    assert [entry['name'] for entry in contract['outputs']] == ['cls_scores', 'bbox_preds']
    assert contract['preprocessing']['color_order'] == 'rgb'
    assert contract['classes'] == list('0123456789')


def test_without_test_data_at_hand_the_report_says_so(deployment):
    report = json.loads((deployment[0] / 'model.report.json').read_text())
    assert report['pictures']['pictures'] == []
    assert report['pictures']['note'].startswith(
        'No picture is drawn: no packed COCO data set at data/digits/val_lmdb')
    facts = {row['fact']: row['value'] for row in report['input stage']}
    assert facts['color_order'] == 'rgb' and facts['resize.height'] == '128'


def test_pictures_that_are_asked_for_and_are_not_there_end_it(tool, digits_config, checkpoints,
                                                              tmp_path):
    done = tool('deploy_bpu.py', digits_config, checkpoints['calibration'], '--out',
                tmp_path / 'out', '--pictures', '2')
    assert (done.code, 'data/digits/val_lmdb' in done.err) == (2, True)
    assert not (tmp_path / 'out').exists()


def test_export_writes_the_same_texts(tool, digits_config, checkpoints, deployment, tmp_path):
    done = tool('export_hbir.py', digits_config, checkpoints['calibration'],
                '--out', tmp_path / 'out')
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == EXPORTED
    for name in EXPORTED:
        assert (tmp_path / 'out' / name).read_bytes() == (deployment[0] / name).read_bytes()


@pytest.mark.parametrize('name', ['export_hbir.py', 'deploy_bpu.py'])
def test_a_float_checkpoint_is_refused_and_nothing_is_written(tool, digits_config, checkpoints,
                                                              name, tmp_path):
    done = tool(name, digits_config, checkpoints['float'], '--out', tmp_path / 'out')
    assert (done.code, "is of stage 'float'" in done.err) == (2, True)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('arguments, words', [
    (['--march', 'bayes'], "unknown march 'bayes'"),
    (['--backend', 'hbdk4'], 'hbdk4 is not installed'),
    (['--pictures', '33'], 'error: --pictures: expected 0 to 32, found 33'),
    (['--pictures', '-1'], "expected a whole number from 0, found '-1'"),
    (['--pictures', '0', '--float-checkpoint', 'float.pth'],
     'error: --float-checkpoint: it is drawn in test pictures')])
def test_bad_input_ends_before_anything_is_loaded(tool, digits_config, arguments, words, tmp_path):
    done = tool('deploy_bpu.py', digits_config, 'none.pth', '--out', tmp_path / 'out', *arguments)
    assert (done.code, words in done.err) == (2, True)
    assert not (tmp_path / 'out').exists()


def test_a_compilation_that_fails_leaves_the_folder_as_it_was(tool, digits_config, checkpoints,
                                                              tmp_path, monkeypatch):
    from mmdet_bpu.apis import deployment
    from mmdet_bpu.errors import BpuError

    def refuse(*arguments, **keywords):
        raise BpuError('3 ops cannot run on nash-e')

    monkeypatch.setattr(deployment, 'compile_hbm', refuse)
    (tmp_path / 'model.hbm').write_text('of an earlier deployment')
    done = tool('deploy_bpu.py', digits_config, checkpoints['calibration'], '--out', tmp_path)
    assert (done.code, '3 ops cannot run' in done.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ['model.hbm']
