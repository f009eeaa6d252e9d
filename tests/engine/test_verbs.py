"""Train and evaluate as functions, and what of their parameters is refused."""
from pathlib import Path

import pytest
import torch

from mmdet_bpu import apis
from mmdet_bpu.engine.config_options import parse_options
from mmdet_bpu.errors import BpuError

SHORT = ('train_cfg.max_epochs=1', 'log_level=WARNING', 'default_hooks.logger.interval=1')


def test_train_and_evaluate_need_no_command_line(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = apis.load_config(str(tiny_config), 'float', [*SHORT, 'experiment_name=verbs_train'])
    model = apis.train(cfg)
    assert cfg.work_dir == 'work_dirs/tiny_float'
    checkpoint = Path(cfg.work_dir) / 'epoch_1.pth'
    trained = torch.load(checkpoint, weights_only=True)['state_dict']
    assert torch.equal(trained['bbox_head.cls_branches.0.bias'].cpu(),
                       model.state_dict()['bbox_head.cls_branches.0.bias'].cpu())

    cfg = apis.load_config(str(tiny_config), 'float', [*SHORT, 'experiment_name=verbs_test'])
    metrics = apis.evaluate(cfg, checkpoint, deploy_preprocessing=True)
    assert metrics['float_deploy/coco/bbox_mAP'] == metrics['coco/bbox_mAP']


def refused(cfg, **parameters):
    with pytest.raises(BpuError) as caught:
        apis.train(cfg, **parameters)
    return str(caught.value)


def test_a_resumed_run_takes_no_other_weights(tiny_config):
    cfg = apis.load_config(str(tiny_config), 'float')
    assert 'parameter resume=y.pth and parameter load_from=x.pth name two files' in refused(
        cfg, resume='y.pth', load_from='x.pth')


def test_a_rate_is_scaled_only_from_a_known_batch_size(tiny_config):
    cfg = apis.load_config(str(tiny_config), 'float')
    cfg.auto_scale_lr = None
    assert 'parameter auto_scale_lr: expected auto_scale_lr.base_batch_size' in refused(
        cfg, auto_scale_lr=True)


def test_a_config_without_a_stage_is_not_evaluated(tiny_config):
    cfg = apis.load_config(str(tiny_config))
    cfg.pop('bpu')
    with pytest.raises(BpuError, match='no stage of its own; give parameter stage'):
        apis.evaluate(cfg, 'x.pth')


def test_options_are_read_as_mmengine_reads_them():
    assert parse_options(['a.b=1', 'c=(1,2.5)', "d=['x',\"y\"]", 'e=x=y', 'f=None', 'g=True']) == {
        'a.b': 1, 'c': (1, 2.5), 'd': ['x', 'y'], 'e': 'x=y', 'f': None, 'g': True}
    assert parse_options([]) == {}


@pytest.mark.parametrize('option', ['a', 'a=[1,2', 'a=(1,[2)'])
def test_an_option_that_cannot_be_read_is_named(option):
    with pytest.raises(BpuError, match='parameter cfg_options: expected KEY=VALUE'):
        parse_options([option])
