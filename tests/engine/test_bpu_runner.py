"""The runner takes a stock detector through its stages."""
import copy
from pickle import UnpicklingError

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.detector_path import example_samples
from mmdet_bpu.quantization import model_report, quantization_of, set_quant_state
from tests.same_weights import assert_same_weights

EPOCHS = {'float': 2, 'calibration': 1, 'qat': 2}
ITERATIONS_PER_EPOCH = 4


class Killed(Exception):
    """Stands for the end of the process."""


class KillHook(Hook):
    """Ends training at an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            raise Killed


def last_checkpoint(root, stage):
    return root / f'tiny_{stage}' / f'epoch_{EPOCHS[stage]}.pth'


def is_activation_scale(key):
    return key.startswith('quant.') and key.endswith('scale')


@pytest.fixture(scope='module')
def qat_runner(trained, staged, tmp_path_factory):
    """A runner that holds the finished QAT model."""
    return BPURunner.from_cfg(
        staged('qat', tmp_path_factory.mktemp('eval') / 'x_qat',
               load_from=str(last_checkpoint(trained, 'qat'))))


@pytest.mark.parametrize('stage', EPOCHS)
def test_checkpoints_are_plain_data_and_say_their_stage(trained, stage):
    checkpoint = torch.load(last_checkpoint(trained, stage), weights_only=True)
    assert checkpoint['meta']['bpu_stage'] == stage
    assert checkpoint['meta']['epoch'] == EPOCHS[stage]


def test_calibration_keeps_the_weights_and_sets_every_scale(trained, staged, tmp_path):
    runner = BPURunner.from_cfg(
        staged('calibration', tmp_path / 'x_calibration',
               load_from=str(last_checkpoint(trained, 'calibration'))))
    # int32 sums of the scores take the scale of their product.
    assert all(row['calibrated'] for row in model_report(runner.model) if row['dtype'] != 'int32')
    floats = read_checkpoint(str(last_checkpoint(trained, 'float')))['state_dict']
    name = 'bbox_head.cls_branches.0.weight'
    assert torch.equal(runner.model.state_dict()[name].cpu(), floats[name])


def test_qat_trains_weights_and_leaves_activation_scales(trained):
    before = read_checkpoint(str(last_checkpoint(trained, 'calibration')))['state_dict']
    after = read_checkpoint(str(last_checkpoint(trained, 'qat')))['state_dict']
    name = 'bbox_head.cls_branches.0.weight'
    assert not torch.equal(before[name], after[name])
    activation_scales = [key for key in before if is_activation_scale(key)]
    assert activation_scales
    assert all(torch.equal(before[key], after[key]) for key in activation_scales)


def test_qat_from_float_weights_calibrates_first_on_the_same_images(trained, staged, tmp_path):
    runner = BPURunner.from_cfg(
        staged('qat', tmp_path / 'x_qat', load_from=str(last_checkpoint(trained, 'float')),
               train_cfg__max_epochs=1))
    assert runner.needs_calibration
    runner.train()
    calibrated = read_checkpoint(str(last_checkpoint(trained, 'calibration')))['state_dict']
    model = runner.model.state_dict()
    for key in calibrated:
        if is_activation_scale(key):
            assert torch.equal(calibrated[key], model[key].cpu()), key


@pytest.mark.parametrize('stage', ['float', 'qat'])
def test_a_killed_and_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
        trained, staged, tmp_path, stage):
    work_dir = tmp_path / f'tiny_{stage}'
    calibrated = dict(load_from=str(last_checkpoint(trained, 'calibration')))
    source = {} if stage == 'float' else calibrated
    runner = BPURunner.from_cfg(staged(stage, work_dir, **source))
    runner.register_hook(KillHook(ITERATIONS_PER_EPOCH + 2))
    with pytest.raises(Killed):
        runner.train()
    # No source is given, and other workers load the data: neither may matter.
    runner = BPURunner.from_cfg(
        staged(stage, work_dir, resume=True, train_dataloader__num_workers=2,
               train_dataloader__persistent_workers=True))
    runner.train()
    assert runner.iter == 2 * ITERATIONS_PER_EPOCH
    assert_same_weights(work_dir / 'epoch_2.pth', last_checkpoint(trained, stage))


def test_a_resumed_run_takes_over_a_seed_that_was_drawn(staged, tmp_path):
    first = BPURunner.from_cfg(staged('float', tmp_path / 'float', randomness__seed=None,
                                      train_cfg__max_epochs=1))
    first.train()
    resumed = BPURunner.from_cfg(
        staged('float', tmp_path / 'float', randomness__seed=None, resume=True))
    assert resumed.seed == first.seed


def test_a_finished_calibration_resumes_to_nothing_left_to_do(trained, staged):
    runner = BPURunner.from_cfg(staged('calibration', trained / 'tiny_calibration', resume=True))
    runner.train()
    assert runner.iter == runner.max_iters == 4


def test_metrics_carry_their_stage_and_the_plain_key_stays(qat_runner):
    metrics = qat_runner.test()
    assert metrics['qat/coco/bbox_mAP'] == metrics['coco/bbox_mAP']
    assert next(iter(metrics)) == 'coco/bbox_mAP'


def test_a_second_evaluation_overwrites_nothing(trained, staged, tmp_path):
    runner = BPURunner.from_cfg(
        staged('qat', tmp_path / 'x_qat', load_from=str(last_checkpoint(trained, 'qat')),
               val_cfg__also_unquantized=True))
    metrics = runner.val()
    assert {'coco/bbox_mAP', 'qat/coco/bbox_mAP', 'unquantized/coco/bbox_mAP'} <= set(metrics)
    assert not any(name.startswith('qat/unquantized') for name in metrics)
    assert quantization_of(runner.model).state == 'quantize'


def test_the_float_model_can_be_measured_under_deploy_preprocessing(trained, staged, tmp_path):
    runner = BPURunner.from_cfg(
        staged('float', tmp_path / 'x_float', load_from=str(last_checkpoint(trained, 'float')),
               bpu__deploy_preprocessing=True))
    assert 'float_deploy/coco/bbox_mAP' in runner.test()


def test_save_best_reads_the_plain_key(trained, staged, tmp_path):
    work_dir = tmp_path / 'tiny_qat'
    BPURunner.from_cfg(
        staged('qat', work_dir, load_from=str(last_checkpoint(trained, 'calibration')),
               train_cfg__max_epochs=1,
               default_hooks__checkpoint__save_best='coco/bbox_mAP')).train()
    assert list(work_dir.glob('best_coco_bbox_mAP*.pth'))


@pytest.mark.parametrize('stage, source, words', [
    ('calibration', 'qat', "of stage 'qat'; expected 'float'"),
    ('float', 'calibration', "of stage 'calibration'; expected 'float'")])
def test_a_checkpoint_of_the_wrong_stage_is_refused(trained, staged, tmp_path, stage, source,
                                                    words):
    with pytest.raises(BpuError, match=words):
        BPURunner.from_cfg(staged(stage, tmp_path / stage,
                                  load_from=str(last_checkpoint(trained, source)))).train()


@pytest.mark.parametrize('verb', ['test', 'val'])
def test_a_stage_is_evaluated_with_its_own_weights_only(trained, staged, tmp_path, verb):
    runner = BPURunner.from_cfg(staged('qat', tmp_path / 'x_qat',
                                       load_from=str(last_checkpoint(trained, 'calibration'))))
    with pytest.raises(BpuError, match="of stage 'calibration'; expected 'qat' to evaluate"):
        getattr(runner, verb)()


def test_a_checkpoint_of_the_stock_runner_is_a_float_one(staged, tmp_path):
    stock = Runner.from_cfg(staged('float', tmp_path / 'stock', train_cfg__max_epochs=1))
    stock.train()
    path = tmp_path / 'stock' / 'epoch_1.pth'
    with pytest.raises(UnpicklingError):  # it names classes
        torch.load(path, weights_only=True)
    runner = BPURunner.from_cfg(staged('calibration', tmp_path / 'x', load_from=str(path)))
    assert runner.weights_stage == 'float'
    name = 'bbox_head.cls_branches.0.weight'
    assert torch.equal(runner.model.state_dict()[name], stock.model.state_dict()[name])


def test_resuming_from_weights_alone_is_refused(trained, staged, tmp_path):
    path = tmp_path / 'weights.pth'
    checkpoint = read_checkpoint(str(last_checkpoint(trained, 'float')))
    torch.save(dict(state_dict=checkpoint['state_dict']), path)
    runner = BPURunner.from_cfg(
        staged('float', tmp_path / 'x_float', load_from=str(path), resume=True))
    with pytest.raises(BpuError, match='cannot be resumed'):
        runner.train()


def test_missing_keys_are_an_error(trained, staged, tmp_path):
    checkpoint = read_checkpoint(str(last_checkpoint(trained, 'float')))
    del checkpoint['state_dict']['query_embedding.weight']
    torch.save(dict(state_dict=checkpoint['state_dict']), tmp_path / 'part.pth')
    with pytest.raises(BpuError, match='1 missing: query_embedding.weight'):
        BPURunner.from_cfg(staged('calibration', tmp_path / 'x_calibration',
                                  load_from=str(tmp_path / 'part.pth')))


def test_beyond_float_initialisation_leaves_the_weights_alone(qat_runner):
    before = {key: value.clone() for key, value in qat_runner.model.state_dict().items()}
    qat_runner._init_model_weights()
    after = qat_runner.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_train_and_eval_change_no_state(qat_runner):
    model = qat_runner.model
    for state in ('off', 'quantize'):
        set_quant_state(model, state)
        for _ in range(2):
            model.train(), model.eval()
        assert quantization_of(model).state == state


def test_a_copy_lives_on_its_own(qat_runner):
    model = qat_runner.model.eval()
    twin = copy.deepcopy(model)
    image = _image(model)
    with torch.no_grad():
        expected = model(image, _samples(), mode='tensor')[0]
        for parameter in twin.parameters():
            parameter.add_(1.0)
        assert torch.equal(model(image, _samples(), mode='tensor')[0], expected)
        assert not torch.equal(twin(image, _samples(), mode='tensor')[0], expected)
    set_quant_state(twin, 'off')
    assert quantization_of(model).state == 'quantize'


def test_the_model_runs_under_autocast(qat_runner):
    model = qat_runner.model.eval()
    image = _image(model)
    with torch.no_grad():
        expected = model(image, _samples(), mode='tensor')
        with torch.autocast(image.device.type, dtype=torch.bfloat16):
            outputs = model(image, _samples(), mode='tensor')
    for output, reference in zip(outputs, expected):
        assert torch.isfinite(output).all() and output.shape == reference.shape


def test_a_training_step_under_autocast_gives_finite_gradients(qat_runner):
    model = copy.deepcopy(qat_runner.model).train()
    loader = qat_runner.build_dataloader(qat_runner.cfg.train_dataloader, seed=0)
    data = model.data_preprocessor(next(iter(loader)), True)
    with torch.autocast(data['inputs'].device.type, dtype=torch.bfloat16):
        losses = model(**data, mode='loss')
    model.parse_losses(losses)[0].backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='mmengine trains under AMP on CUDA only')
def test_qat_trains_under_amp(trained, staged, tmp_path):
    runner = BPURunner.from_cfg(
        staged('qat', tmp_path / 'x_qat', load_from=str(last_checkpoint(trained, 'calibration')),
               train_cfg__max_epochs=1, optim_wrapper__type='AmpOptimWrapper'))
    runner.train()
    assert all(torch.isfinite(parameter).all() for parameter in runner.model.parameters())


def test_moving_averages_are_trained_saved_and_resumed(trained, staged, tmp_path):
    ema = dict(custom_hooks=[dict(type='EMAHook', momentum=0.5)])
    work_dir = tmp_path / 'tiny_qat'
    whole = tmp_path / 'whole_qat'
    source = str(last_checkpoint(trained, 'calibration'))
    BPURunner.from_cfg(staged('qat', whole, load_from=source, **ema)).train()
    runner = BPURunner.from_cfg(staged('qat', work_dir, load_from=source, **ema))
    runner.register_hook(KillHook(ITERATIONS_PER_EPOCH + 1))
    with pytest.raises(Killed):
        runner.train()
    BPURunner.from_cfg(staged('qat', work_dir, resume=True, **ema)).train()
    checkpoint = torch.load(whole / 'epoch_2.pth', weights_only=True)
    name = 'bbox_head.cls_branches.0.weight'
    assert not torch.equal(checkpoint['state_dict'][name].cpu(),
                           checkpoint['ema_state_dict'][f'module.{name}'].cpu())
    assert_same_weights(work_dir / 'epoch_2.pth', whole / 'epoch_2.pth')


def _samples():
    return example_samples(1, (64, 64))


def _image(model):
    return torch.randn(1, 3, 64, 64, device=next(model.parameters()).device)


def test_a_float_run_trains_deformable_convolutions_whatever_mmcv_is_installed(
        staged, tmp_path):
    runner = BPURunner.from_cfg(
        staged('float', tmp_path / 'x_float', train_cfg__max_epochs=1,
               model__backbone__depth=50, model__backbone__base_channels=2,
               model__backbone__dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
               model__backbone__stage_with_dcn=(False, False, False, True),
               model__backbone__zero_init_residual=False,
               model__neck__in_channels=[32, 64]))
    runner.train()
    # Its offsets start at 0.
    assert runner.model.backbone.layer4[0].conv2.conv_offset.weight.any()
