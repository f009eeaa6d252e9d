"""Another calibration from what one has seen: the same scales as from the images, and no image."""
import shutil

import pytest
import torch

from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.engine.training import train
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization.saved_statistics import KEY

RULES = [dict(site='neck.*', observer='percentile'), dict(op='linear', observer='kl'),
         dict(site='backbone.layer4*', dtype='int16'), dict(module='Conv2d', weight_observer='mse')]


@pytest.fixture(scope='module')
def calibration(trained):
    return trained / 'tiny_calibration' / 'epoch_1.pth'


def scales(path):
    """All that a checkpoint holds of quantization, by key."""
    return {name: tensor for name, tensor in read_checkpoint(str(path))['state_dict'].items()
            if name.startswith('quant.')}


def again(staged, calibration, folder, **overrides):
    """Calibrate from the statistics of a checkpoint, with data that do not exist."""
    cfg = staged('calibration', folder, train_dataloader__dataset__data_root='nowhere',
                 val_dataloader__dataset__data_root='nowhere', **overrides)
    train(cfg, str(folder), from_statistics=str(calibration))
    return folder / 'epoch_1.pth'


@pytest.mark.parametrize('settings', [
    dict(observer=dict(type='mix', _delete_=True), weight_observer='percentile'),
    dict(observer='moving_average', qconfig=RULES)], ids=['mix and weights', 'rules and dtypes'])
def test_scales_are_those_of_a_calibration_on_images(staged, trained, calibration, tmp_path, settings):
    overrides = {f'bpu__calibration__{name}': value for name, value in settings.items()
                 if name != 'qconfig'}
    if 'qconfig' in settings:
        overrides['bpu__qconfig'] = settings['qconfig']
    BPURunner.from_cfg(staged(
        'calibration', tmp_path / 'images_calibration',
        load_from=str(trained / 'tiny_float' / 'epoch_2.pth'), **overrides)).train()
    expected = scales(tmp_path / 'images_calibration' / 'epoch_1.pth')
    found = scales(again(staged, calibration, tmp_path / 'again_calibration', **overrides))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    metas = [read_checkpoint(str(tmp_path / folder / 'epoch_1.pth'))['meta']['dataset_meta']
             for folder in ('again_calibration', 'images_calibration')]
    assert metas[0] == metas[1] and metas[0]['classes']
    before = scales(calibration)
    assert any(not torch.equal(tensor, found[name]) for name, tensor in before.items()
               if name in found and name.endswith('scale'))


def test_it_can_be_done_again_and_trained_on(staged, calibration, tmp_path):
    first = again(staged, calibration, tmp_path / 'one_calibration', bpu__calibration__observer='mse')
    second = again(staged, first, tmp_path / 'two_calibration')
    before, after = scales(calibration), scales(second)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    shutil.move(second.parent, tmp_path / 'tiny_calibration')
    model = BPURunner.from_cfg(staged('qat', tmp_path / 'tiny_qat', train_cfg__max_epochs=1)).train()
    assert model.quant.state == 'quantize'


def test_reaches_of_weights_are_those_of_the_checkpoint_whatever_the_config_says(staged, calibration,
                                                                                tmp_path):
    again(staged, calibration, tmp_path / 'tiny_calibration', bpu__calibration__weight_observer='mse')
    saved = scales(tmp_path / 'tiny_calibration' / 'epoch_1.pth')
    runner = BPURunner.from_cfg(staged('qat', tmp_path / 'tiny_qat', train_cfg__max_epochs=1))
    reached = {name: tensor for name, tensor in runner.model.state_dict().items() if 'quant.reach' in name}
    assert len(reached) > 10 and all(
        torch.equal(saved[name], each.cpu()) for name, each in reached.items())
    assert any((each < 1).any() for each in reached.values())


def test_with_the_float_weights_that_it_was_made_of(staged, trained, calibration, tmp_path):
    cfg = staged('calibration', tmp_path, bpu__calibration__observer='mse')
    source = str(trained / 'tiny_float' / 'epoch_2.pth')
    train(cfg, str(tmp_path), load_from=source, from_statistics=str(calibration))
    expected = scales(again(staged, calibration, tmp_path / 'b', bpu__calibration__observer='mse'))
    found = scales(tmp_path / 'epoch_1.pth')
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_other_weights_are_refused(staged, trained, calibration, tmp_path):
    with pytest.raises(BpuError, match='do not fit this model, by its weights: .*checksum'):
        train(staged('calibration', tmp_path), str(tmp_path),
              load_from=str(trained / 'tiny_float' / 'epoch_1.pth'),
              from_statistics=str(calibration))


def test_another_input_stage_is_refused(staged, calibration, tmp_path):
    with pytest.raises(BpuError, match=r'does not fit this config: input_shape was \(64, 64\)'):
        again(staged, calibration, tmp_path, bpu__input_shape=(64, 96))


def test_another_repair_is_refused(staged, calibration, tmp_path):
    with pytest.raises(BpuError, match='repairs: bpu.calibration.equalize was False, now it is True'):
        again(staged, calibration, tmp_path, bpu__calibration__equalize=True)


def test_repairs_on_images_reach_copies_and_cannot_be_made_without(staged, trained, tmp_path):
    asked = dict(bpu__calibration__adaround=dict(by='block', iterations=5, batches=1),
                 bpu__calibration__bias_correction=True)
    source = str(trained / 'tiny_float' / 'epoch_2.pth')
    folder = tmp_path / 'repaired_calibration'
    runner = BPURunner.from_cfg(staged('calibration', folder, load_from=source, custom_hooks=[
        dict(type='EMAHook')], **asked))
    runner.train()
    averaged = next(hook for hook in runner.hooks if hasattr(hook, 'ema_model')).ema_model.module
    weights = averaged.state_dict()
    for name, tensor in runner.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    found = read_checkpoint(str(folder / 'epoch_1.pth'))['state_dict']
    before = read_checkpoint(source)['state_dict']
    assert not torch.equal(found['bbox_head.cls_branches.0.bias'],
                           before['bbox_head.cls_branches.0.bias'])
    with pytest.raises(BpuError, match='adaround and bias_correction of bpu.calibration need images'):
        again(staged, folder / 'epoch_1.pth', tmp_path / 'b_calibration', **asked)
    with pytest.raises(BpuError, match='repairs: bpu.calibration.adaround was .*block.*, now it is False'):
        again(staged, folder / 'epoch_1.pth', tmp_path / 'c_calibration')


def test_another_number_of_bins_is_refused(staged, calibration, tmp_path):
    with pytest.raises(BpuError, match='asks for 64 bins, and 2048 were counted'):
        again(staged, calibration, tmp_path, bpu__calibration__observer=dict(
            type='mse', bins=64, _delete_=True))


def test_a_checkpoint_without_statistics_is_refused(staged, trained, tmp_path):
    with pytest.raises(BpuError, match='holds no statistics of a calibration'):
        again(staged, trained / 'tiny_float' / 'epoch_2.pth', tmp_path)
    with pytest.raises(BpuError, match="is of stage 'qat'; expected 'float' or 'calibration'"):
        again(staged, trained / 'tiny_qat' / 'epoch_2.pth', tmp_path)


@pytest.mark.parametrize('damage, message', [
    (dict(version=7), 'its statistics are of version 7, this mmdet_bpu reads 2'),
    (dict(tensors=dict(image=dict(bins=4))), 'its statistics are damaged'),
    (dict(weights=None), 'its statistics are damaged'),
    (dict(checksum='0'), 'its statistics are damaged'),
    (dict(tensors={}), 'its statistics are damaged'),
    (dict(tensors={}, version=1), 'by its tensors: it has not seen image'),
    (dict(graph=[]), 'by its graph: it had 0 operations, now it has'),
])
def test_damaged_statistics_are_refused(staged, calibration, tmp_path, damage, message):
    checkpoint = torch.load(calibration, weights_only=True)
    checkpoint[KEY].update(damage)
    torch.save(checkpoint, tmp_path / 'damaged.pth')
    with pytest.raises(BpuError, match=message):
        again(staged, tmp_path / 'damaged.pth', tmp_path / 'c')


def test_only_a_calibration_reads_them(staged, calibration, tmp_path):
    with pytest.raises(BpuError, match="parameter from_statistics: expected a config of stage"):
        train(staged('qat', tmp_path), str(tmp_path), from_statistics=str(calibration))
    with pytest.raises(BpuError, match='exclude each other'):
        train(staged('calibration', tmp_path), str(tmp_path), resume='auto',
              from_statistics=str(calibration))


def test_the_command(tool_process, tiny_config, calibration, tmp_path):
    done = tool_process('train.py', tiny_config, '--stage', 'calibration', '--from-statistics',
                        calibration, '--work-dir', 'w', '--cfg-options',
                        'bpu.calibration.observer=percentile', cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / 'w' / 'epoch_1.pth').is_file()
    done = tool_process('train.py', tiny_config, '--stage', 'calibration', '--from-statistics',
                        'absent.pth', cwd=tmp_path)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert 'absent.pth' in done.stderr


def test_statistics_of_version_1_still_open(staged, calibration, tmp_path):
    """They do not say what the graph computed, nor have a checksum."""
    checkpoint = torch.load(calibration, weights_only=True)
    checkpoint[KEY].update(version=1)
    del checkpoint[KEY]['graph'], checkpoint[KEY]['checksum']
    torch.save(checkpoint, tmp_path / 'older.pth')
    found = again(staged, tmp_path / 'older.pth', tmp_path / 'c')
    assert scales(found).keys() == scales(calibration).keys()
    assert read_checkpoint(str(found))[KEY]['version'] == 2


@pytest.mark.parametrize('overrides, words', [
    (dict(model__positional_encoding__temperature=50), 'a constant of .* has other values'),
    (dict(model__encoder__layer_cfg__norm_cfg=dict(type='LN', eps=0.1)), r'add.0 was .*1e-05.*0\.1')])
def test_other_parameters_of_equal_shapes_are_refused(staged, calibration, tmp_path, overrides, words):
    with pytest.raises(BpuError, match=f'by its graph: .*{words}'):
        again(staged, calibration, tmp_path, **overrides)
