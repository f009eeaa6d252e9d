"""QAT with live batch norms that are folded step by step: resumed, averaged, evaluated."""
import pytest
import torch

from mmdet_bpu.apis.models import load_quantized
from mmdet_bpu.engine.hooks import BatchNormHook
from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.engine.training import train
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.text import print_text
from mmdet_bpu.lowering.export import lower_networks
from mmdet_bpu.quantization import quantized_graphs
from mmdet_bpu.quantization.norm_states import live_paths
from mmdet_bpu.quantization.saved_norms import KEY
from tests.same_weights import assert_same_weights

STEPS = dict(by='iter', at=[5, 9], parts=['backbone.layer2.*', '*'])  # an epoch has 4 iterations
CONV, NORM = 'backbone.layer2.0.conv1', 'backbone.layer2.0.bn1'
LATER = 'backbone.layer3.0.conv1'
EMA = dict(type='EMAHook', momentum=0.1)


@pytest.fixture(scope='module')
def calibration(trained):
    return str(trained / 'tiny_calibration' / 'epoch_1.pth')


def live(staged, work_dir, source, setting=STEPS, **overrides):
    """QAT of a backbone whose norms train, behind a frozen stem."""
    options = dict(
        load_from=source, train_cfg__max_epochs=3, train_cfg__val_begin=1000,
        model__backbone__norm_eval=False, model__backbone__norm_cfg__requires_grad=True,
        default_hooks__checkpoint__max_keep_ckpts=-1, bpu__qat__batch_norm=setting,
        custom_hooks=[EMA])
    return staged('qat', work_dir, **{**options, **overrides})


@pytest.fixture(scope='module')
def finished(staged, calibration, tmp_path_factory):
    """Folder of such a run: live after epoch 1, half folded after 2, folded after 3."""
    root = tmp_path_factory.mktemp('live') / 'tiny_qat'
    train(live(staged, root, calibration), str(root))
    return root


@pytest.fixture(scope='module')
def saved(finished):
    """Its checkpoints in order."""
    return [read_checkpoint(str(finished / f'epoch_{k}.pth')) for k in (1, 2, 3)]


@pytest.mark.parametrize('part, prefix', [('state_dict', ''), ('ema_state_dict', 'module.')])
def test_parts_are_folded_when_they_are_due_and_averages_with_them(saved, part, prefix):
    states = [checkpoint[part] for checkpoint in saved]
    flags = [[bool(state[f'{prefix}{norm}.live']) for norm in (NORM, 'backbone.layer3.0.bn1')]
             for state in states]
    assert flags == [[True, True], [False, True], [False, False]]
    first, second, third = (state[f'{prefix}{NORM}.running_mean'] for state in states)
    assert not torch.equal(first, second) and torch.equal(second, third)
    first, second, third = (state[f'{prefix}{CONV}.bias'] for state in states)
    assert not first.any() and second.any() and not torch.equal(second, third)


def test_frozen_norms_stay_folded(saved):
    assert not any(name.startswith('backbone.bn1.') for name in saved[0]['state_dict'])


@pytest.mark.parametrize('epoch', [1, 2], ids=['live', 'half folded'])
def test_a_resumed_run_is_the_one_that_was_not_interrupted(staged, finished, tmp_path, epoch):
    work_dir = tmp_path / 'tiny_qat'
    cfg = live(staged, work_dir, None, train_cfg__max_epochs=epoch + 1)
    train(cfg, str(work_dir), resume=str(finished / f'epoch_{epoch}.pth'))
    name = f'epoch_{epoch + 1}.pth'
    assert_same_weights(finished / name, work_dir / name, ('state_dict', 'ema_state_dict'))


def integers(model):
    return print_text(lower_networks(quantized_graphs(model)).convert().result)


def test_its_checkpoints_are_evaluated_and_exported_as_any_other(staged, finished, calibration,
                                                                 tmp_path):
    file = str(finished / 'epoch_2.pth')
    runner = BPURunner.from_cfg(live(staged, tmp_path / 'x_qat', file, resume=True,
                                     custom_hooks=[]))
    runner.load_checkpoint(file)
    assert LATER in live_paths(runner.model) and CONV not in live_paths(runner.model)
    # Whatever the config says now.
    model = load_quantized(live(staged, tmp_path / 'x_qat', None, 'folded'), file)
    assert list(model.state_dict()) == list(read_checkpoint(calibration)['state_dict'])
    assert integers(model) == integers(runner.model)
    tested = BPURunner.from_cfg(live(staged, tmp_path / 'x_qat', file)).model  # as tools/test.py
    assert all(torch.equal(tested.state_dict()[k].cpu(), v.cpu())
               for k, v in model.state_dict().items())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found, expected = (
            each.eval().to('cpu').extract_feat(image) for each in (model, runner.model))
    for each, other in zip(found, expected):  # not quantized here: the norm does its part itself
        torch.testing.assert_close(each, other, atol=1e-4, rtol=1e-3)


def test_qat_from_float_calibrates_before_they_are_live(staged, trained, tmp_path):
    source = str(trained / 'tiny_float' / 'epoch_2.pth')
    runner = BPURunner.from_cfg(live(staged, tmp_path / 'x_qat', source, 'live',
                                     train_cfg__max_epochs=1))
    runner.train()
    assert CONV in live_paths(runner.model)
    before, after = read_checkpoint(source)['state_dict'], runner.model.cpu().state_dict()
    unit = after[f'{NORM}.unit'].view(-1, 1, 1, 1)
    raw = after[f'{CONV}.weight'] / unit
    torch.testing.assert_close(raw, before[f'{CONV}.weight'], atol=1e-2, rtol=1e-2)


def test_checkpoints_without_norms_are_refused(staged, calibration, tmp_path):
    older = torch.load(calibration, weights_only=True)
    norms = older.pop(KEY)
    file = str(tmp_path / 'older.pth')
    torch.save(older, file)
    with pytest.raises(BpuError, match='was written before mmdet_bpu kept the statistics of folded '
                                       'batch norms.*bpu.qat.batch_norm.*calibrate again'):
        BPURunner.from_cfg(live(staged, tmp_path / 'x_qat', file))
    for changed, words in ((dict(norms, version=9), 'are of version 9'),
                           (dict(norms, norms={}), 'are damaged')):
        torch.save({**older, KEY: changed}, file)
        with pytest.raises(BpuError, match=f'its batch norms {words}'):
            BPURunner.from_cfg(live(staged, tmp_path / 'x_qat', file))


@pytest.mark.parametrize('setting, words', [
    ('thawed', "batch_norm: expected 'folded', 'live', or a dict .* found 'thawed'"),
    (3, "batch_norm: expected 'folded', 'live', or a dict"),
    (dict(by='epoch'), r'batch_norm.at: expected the epochs or iterations .* found none'),
    (dict(at=[3, 2], parts=['*', '*']), r'batch_norm.at: expected a list .* found \[3, 2\]'),
    (dict(at=[1, 2]), 'batch_norm.parts: expected 2 globs, one for each of .* found None'),
    (dict(at=[1], part=['*']), 'did you mean bpu.qat.batch_norm.parts'),
    (dict(at=[1], by='step'), "batch_norm.by: expected one of 'epoch', 'iter', found 'step'"),
    (dict(at=[1], parts=['head.*']), "batch_norm.parts: 'head.*' matches no convolution")])
def test_bad_settings_are_refused_in_one_message(staged, calibration, tmp_path, setting, words):
    with pytest.raises(BpuError, match=words) as caught:
        train(live(staged, tmp_path / 'x_qat', calibration, setting), str(tmp_path / 'x_qat'))
    assert '\n' not in str(caught.value)


def test_norms_that_no_training_updates_are_refused(staged, calibration, tmp_path):
    with pytest.raises(BpuError, match="bpu.qat.batch_norm: expected 'folded' .*norm_eval=True"):
        BPURunner.from_cfg(live(staged, tmp_path / 'x_qat', calibration,
                                model__backbone__norm_eval=True))


def test_settings_come_back_from_plain_data(staged, calibration, tmp_path):
    runner = BPURunner.from_cfg(live(staged, tmp_path / 'x_qat', calibration))
    assert runner.cfg.bpu.qat.batch_norm == STEPS
    hook, = (hook for hook in runner.hooks if isinstance(hook, BatchNormHook))
    assert hook.steps.at == (5, 9)
