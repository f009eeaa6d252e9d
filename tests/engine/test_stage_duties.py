"""What a stage has to do is done whatever loop trains, whatever hooks keep copies of the model."""

import pytest
import torch
from torch import nn

from mmdet_bpu.engine.hooks.due_validation_hook import RECORD
from mmdet_bpu.engine.hooks.quant_state_hook import QuantStateHook
from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.engine.training import AUTO, train
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization import model_report, quantization_of

AVERAGES = [
    dict(type='EMAHook'),
    # As RTMDet and YOLOX have it, and begun only in an epoch that a calibration never reaches.
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True,
         begin_epoch=5)]


def flags(state_dict):
    """Which fake quantizers of a state dict are calibrated; those of int32 sums never are."""
    return {key: bool(value) for key, value in state_dict.items() if key.endswith('.calibrated')}


def scales(state_dict):
    return {key: value for key, value in state_dict.items()
            if key.endswith('.scale') and '.quant.' in f'.{key}'}


def sums(model):
    """Public names of quantizers of int32 sums, whose scale is that of their product."""
    return {row['quantizer'] for row in model_report(model) if row['dtype'] == 'int32'}


def float_checkpoint(trained):
    return str(trained / 'tiny_float' / 'epoch_2.pth')


@pytest.fixture(scope='module')
def calibrated(trained):
    return read_checkpoint(str(trained / 'tiny_calibration' / 'epoch_1.pth'))['state_dict']


@pytest.mark.parametrize('ema', AVERAGES, ids=['parameters', 'buffers'])
def test_the_averaged_model_is_saved_with_the_scales(trained, staged, tmp_path, calibrated, ema):
    work_dir = tmp_path / 'tiny_calibration'
    BPURunner.from_cfg(staged('calibration', work_dir, load_from=float_checkpoint(trained),
                              custom_hooks=[ema])).train()
    saved = read_checkpoint(str(work_dir / 'epoch_1.pth'))
    averaged = {key.removeprefix('module.'): value
                for key, value in saved['ema_state_dict'].items() if key.startswith('module.')}
    for state_dict in (saved['state_dict'], averaged):
        assert flags(state_dict) == flags(calibrated)
        found = scales(state_dict)
        assert found and all(torch.equal(found[key], value)
                             for key, value in scales(calibrated).items())


def test_qat_with_averages_from_float_weights_has_every_scale_in_both(trained, staged, tmp_path,
                                                                      calibrated):
    work_dir = tmp_path / 'tiny_qat'
    BPURunner.from_cfg(staged('qat', work_dir, load_from=float_checkpoint(trained),
                              train_cfg__max_epochs=1,
                              custom_hooks=[dict(AVERAGES[1], begin_epoch=0)])).train()
    saved = read_checkpoint(str(work_dir / 'epoch_1.pth'))
    for prefix, state_dict in (('', saved['state_dict']), ('module.', saved['ema_state_dict'])):
        for key, value in scales(calibrated).items():
            assert torch.equal(state_dict[prefix + key], value), key


def test_qat_by_iterations_from_float_weights_calibrates_first(trained, staged, tmp_path,
                                                               calibrated):
    work_dir = tmp_path / 'tiny_qat'
    cfg = staged('qat', work_dir, load_from=float_checkpoint(trained), param_scheduler=None,
                 log_processor__by_epoch=False, default_hooks__checkpoint__by_epoch=False,
                 default_hooks__checkpoint__interval=3)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=3, val_interval=3)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    runner = BPURunner.from_cfg(cfg)
    assert runner.needs_calibration
    runner.train()
    state_dict = read_checkpoint(str(work_dir / 'iter_3.pth'))['state_dict']
    assert flags(state_dict) == flags(calibrated)
    assert all(torch.equal(state_dict[key], value) for key, value in scales(calibrated).items())


def test_a_quantizer_that_nobody_calibrated_is_named_before_it_quantizes(trained, staged, tmp_path,
                                                                         calibrated):
    damaged = {key: torch.zeros_like(value) if key.endswith('.calibrated') else value
               for key, value in calibrated.items()}
    path = tmp_path / 'damaged.pth'
    torch.save(dict(state_dict=damaged, meta=dict(bpu_stage='calibration')), path)
    runner = BPURunner.from_cfg(staged('qat', tmp_path / 'x_qat', load_from=str(path)))
    with pytest.raises(BpuError, match=r'\d+ tensors have no scale.*: image, .*and \d+ more'):
        runner.train()
    assert runner.iter == 0


def test_int32_sums_need_no_scale(trained, staged, tmp_path):
    runner = BPURunner.from_cfg(staged(
        'qat', tmp_path / 'x_qat', load_from=str(trained / 'tiny_qat' / 'epoch_2.pth')))
    assert sums(runner.model)
    QuantStateHook().before_val_epoch(runner)
    assert quantization_of(runner.model).state == 'quantize'


def test_calibration_by_another_loop_is_refused(trained, staged, tmp_path):
    cfg = staged('calibration', tmp_path / 'x_calibration', load_from=float_checkpoint(trained))
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    with pytest.raises(BpuError, match="train_cfg.type: expected 'CalibrationLoop'.*found "
                                       "'EpochBasedTrainLoop'"):
        BPURunner.from_cfg(cfg).train()


def test_a_calibration_does_not_validate_before_val_begin_even_resumed(trained, staged, tmp_path):
    work_dir = tmp_path / 'tiny_calibration'
    for resume in (None, AUTO):
        train(staged('calibration', work_dir, load_from=float_checkpoint(trained),
                     train_cfg__val_begin=2), resume=resume)
    assert (work_dir / 'epoch_1.pth').is_file() and not (work_dir / RECORD).exists()
    assert (trained / 'tiny_calibration' / RECORD).is_file()


def synchronized(cfg):
    cfg.model.backbone.norm_cfg = dict(type='SyncBN', requires_grad=True)
    return cfg


def test_synchronized_norms_are_folded_as_plain_ones_are(trained, staged, tmp_path, calibrated):
    work_dir = tmp_path / 'tiny_calibration'
    cfg = synchronized(staged('calibration', work_dir, load_from=float_checkpoint(trained)))
    BPURunner.from_cfg(cfg).train()
    state_dict = read_checkpoint(str(work_dir / 'epoch_1.pth'))['state_dict']
    assert list(state_dict) == list(calibrated)
    assert all(torch.equal(state_dict[key], value) for key, value in calibrated.items())


def test_synchronized_norms_train_in_one_process_on_a_cpu(staged, tmp_path):
    cfg = synchronized(staged('float', tmp_path / 'tiny_float', train_cfg__max_epochs=1))
    runner = BPURunner.from_cfg(cfg)
    runner.train()
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in runner.model.modules())


@pytest.mark.parametrize('field, purpose, words', [
    ('optim_wrapper', 'train', r'cannot train.*optim_wrapper \(with optimizer.lr\).*no '
     'optim_wrapper'),
    ('train_dataloader', 'train', 'cannot train.*found no train_dataloader'),
    ('val_evaluator', 'val', 'cannot validate.*found no val_evaluator'),
    ('test_dataloader', 'test', 'cannot test.*found no test_dataloader')])
def test_what_a_run_lacks_is_named_when_it_is_asked_for(trained, staged, tmp_path, field, purpose,
                                                        words):
    cfg = staged('float', tmp_path / 'x_float', load_from=float_checkpoint(trained))
    cfg[field] = None
    runner = BPURunner.from_cfg(cfg)
    with pytest.raises(BpuError, match=words):
        getattr(runner, purpose)()


def test_a_config_without_an_optimizer_is_evaluated(trained, staged, tmp_path):
    cfg = staged('float', tmp_path / 'x_float', load_from=float_checkpoint(trained))
    cfg.optim_wrapper = None
    assert 'float/coco/bbox_mAP' in BPURunner.from_cfg(cfg).test()
