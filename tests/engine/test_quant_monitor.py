"""Curves of quantization during QAT: right numbers, at the right steps, and losses as without."""
import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmdet_bpu.engine.hooks import QuantMonitorHook
from mmdet_bpu.engine.hooks import quant_monitor_hook as module
from mmdet_bpu.engine.hooks.quant_monitor_hook import QuantizerWatch
from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization.fake_quant import FakeQuantizer, QuantState
from mmdet_bpu.quantization.quantized_detector import Quantization, module_key


def quantizers(**dtypes):
    """Fake quantizers of scale 0.5 that are on, by the public name of their site."""
    made = {name: FakeQuantizer(dtype, scale=0.5) for name, dtype in dtypes.items()}
    for quantizer in made.values():
        quantizer.state = QuantState.QUANTIZE
    return made, SimpleNamespace(quantizers=nn.ModuleDict(
        {module_key(name): quantizer for name, quantizer in made.items()}))


def test_each_part_has_the_mean_and_the_lowest_ratio_and_its_share_outside():
    made, quant = quantizers(**{'backbone.a/relu.0': 'int8', 'backbone.b/relu.0': 'int16',
                                'neck/add.0': 'int8', 'neck/linear.0': 'int32'})
    watch = QuantizerWatch(quant)
    made['backbone.a/relu.0'](torch.tensor([3.1, 4.0]))
    made['backbone.a/relu.0'](torch.tensor([100.0, -0.2]))  # the module is called twice
    made['backbone.b/relu.0'](torch.tensor([2.2, 0.0]))
    made['neck/add.0'](torch.tensor([1.0, math.inf]))
    made['neck/linear.0'](torch.tensor([1e9]))
    found = watch.end()
    first = 10 * math.log10((3.1**2 + 16 + 1e4 + .04) / (.1**2 + 36.5**2 + .2**2))
    second = 10 * math.log10(2.2**2 / .2**2)
    assert found == {
        'quant/sqnr_db/backbone': pytest.approx((first + second) / 2, rel=1e-5),
        'quant/lowest_sqnr_db/backbone': pytest.approx(first, rel=1e-5),
        'quant/saturated/backbone': 1 / 6,
        'quant/sqnr_db/neck': 200.0, 'quant/lowest_sqnr_db/neck': 200.0,
        'quant/saturated/neck': 1 / 2}


def test_what_autocast_gives_is_measured_in_float32_and_nobody_is_watched_afterwards():
    made, quant = quantizers(**{'neck/add.0': 'int8'})
    given = torch.tensor([1.25, 3.0], dtype=torch.bfloat16, requires_grad=True)
    watch = QuantizerWatch(quant)
    made['neck/add.0'](given).sum().backward()
    assert watch.end()['quant/sqnr_db/neck'] == pytest.approx(10 * math.log10(10.5625 / .0625))
    assert given.grad is not None and not made['neck/add.0']._forward_hooks


@pytest.mark.parametrize('interval', [0, -1, 1.5, True, '10'])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(BpuError, match='field custom_hooks: expected interval of QuantMonitorHook'):
        QuantMonitorHook(interval)


class Prepared(nn.Module):

    def __init__(self, quantizing=True):
        super().__init__()
        made, _ = quantizers(**{'neck/add.0': 'int8'})
        self.quant = Quantization({}, {}, made, [], [], {})
        self.quant.set_state('quantize' if quantizing else 'observe')


@pytest.mark.parametrize('model, main, iteration', [
    (Prepared(), True, 3), (Prepared(), False, 4), (Prepared(quantizing=False), True, 4),
    (nn.Identity(), True, 4)], ids=['another step', 'another rank', 'calibration', 'float'])
def test_nobody_is_watched_in(model, main, iteration, monkeypatch):
    monkeypatch.setattr(module, 'is_main_process', lambda: main)
    hook, runner = QuantMonitorHook(interval=5), SimpleNamespace(model=model, iter=iteration)
    hook.before_train_iter(runner, 0)
    assert not any(each._forward_hooks for each in model.modules())
    hook.after_train_iter(runner, 0)  # there is no visualizer to write to


def weights(path):
    return {name: tensor for name, tensor in read_checkpoint(str(path))['state_dict'].items()}


def scalars(work_dir, begin):
    """Step -> the scalars whose names begin so, from the files of the runs in a folder, in order."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for row in map(json.loads, path.read_text().splitlines()):
            row = {name: value for name, value in row.items() if name.startswith(begin)} | {
                'step': row['step']}
            if len(row) > 1:
                found[row.pop('step')] = row
    return found


def test_watched_training_has_the_same_losses_and_goes_on_with_its_curves(trained, staged, tmp_path):
    """With an averaged model beside it, and resumed after the first of two epochs of four steps."""
    source = str(trained / 'tiny_calibration' / 'epoch_1.pth')
    ema, watch = dict(type='EMAHook'), dict(type='QuantMonitorHook', interval=3)
    for name, hooks, epochs in (('plain', [ema], 1), ('watched', [watch, ema], 1),
                                ('watched', [watch, ema], 2)):
        cfg = staged('qat', tmp_path / name, load_from=source if epochs == 1 else None,
                     resume=epochs == 2, train_cfg__max_epochs=epochs, custom_hooks=hooks)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        BPURunner.from_cfg(cfg).train()
    losses = [scalars(tmp_path / name, 'loss') for name in ('plain', 'watched')]
    assert all(losses[0][step] == losses[1][step] for step in (1, 2, 3)) and len(losses[1]) == 8
    plain, watched = (weights(tmp_path / name / 'epoch_1.pth') for name in ('plain', 'watched'))
    assert plain.keys() == watched.keys()
    for key, tensor in plain.items():  # two steps of AdamW after the watched one, at a rate of 1e-5
        assert torch.allclose(tensor.double(), watched[key].double(), atol=4e-5, rtol=0), key
    assert scalars(tmp_path / 'plain', 'quant/') == {}
    curves = scalars(tmp_path / 'watched', 'quant/')
    assert list(curves) == [3, 6]
    for row in curves.values():
        parts = {'image', 'backbone', 'neck', 'encoder', 'decoder', 'bbox_head'}
        assert {name.rpartition('/')[2] for name in row} >= parts
        assert all(10 < row[f'quant/sqnr_db/{part}'] < 200 for part in parts)
        assert all(row[f'quant/lowest_sqnr_db/{part}'] <= row[f'quant/sqnr_db/{part}']
                   for part in parts)
        assert all(0 <= row[f'quant/saturated/{part}'] < 0.2 for part in parts)
