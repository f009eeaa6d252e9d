"""The README's commands for a detector that is no DETR: RTMDet, with the averaged weights it has.

The config inherits the stock one, as a user's does; it is made small and reads generated images.
"""
import re
from pathlib import Path

import pytest
import torch

from mmdet_bpu.datasets.digits import make_digits

LOADER = '''{name}_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='digits/', ann_file='annotations/{split}.json',
                 data_prefix=dict(img='{split}/'), metainfo=dict(classes=tuple('0123456789'))))
'''
CONFIG = '''_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
model = dict(
    backbone=dict(deepen_factor=0.17, widen_factor=0.125, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1),
    bbox_head=dict(in_channels=16, feat_channels=16, num_classes=10, exp_on_reg=True),
    test_cfg=dict(max_per_img=20, score_thr=0.0))
val_evaluator = dict(ann_file='digits/annotations/val.json')
test_evaluator = val_evaluator
bpu = dict(input_shape=(96, 96), calibration=dict(num_batches=2))
''' + ''.join(LOADER.format(name=name, split=split) for name, split in (
    ('train', 'train'), ('val', 'val'), ('test', 'val')))


@pytest.fixture(scope='module')
def run(tmp_path_factory, tool_process):
    """Function (tool, *arguments): run in a folder with a config and images; must succeed."""
    folder = tmp_path_factory.mktemp('rtmdet')
    make_digits(folder / 'digits', num_train=4, num_val=2)
    (folder / 'my_rtmdet.py').write_text(CONFIG, encoding='utf-8')

    def command(tool, *arguments):
        done = tool_process(tool, *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    command.folder = folder
    return command


@pytest.fixture(scope='module')
def trained(run) -> Path:
    """The checkpoint at the end of the three stages, each of which finds the one before."""
    for stage in ('float', 'calibration', 'qat'):
        epochs = [] if stage == 'calibration' else ['--cfg-options', 'train_cfg.max_epochs=1']
        run('train.py', 'my_rtmdet.py', '--stage', stage, *epochs)
    return run.folder / 'work_dirs' / 'my_rtmdet_qat' / 'epoch_1.pth'


@pytest.fixture(scope='module')
def deployed(run, trained) -> Path:
    run('deploy_bpu.py', 'my_rtmdet.py', trained, '--out', 'deploy')
    return run.folder / 'deploy' / 'model.hbm'


def test_a_check_says_what_its_stages_do(run):
    found = run('check_model.py', 'my_rtmdet.py')
    assert 'it can be deployed' in found
    assert 'optimizer: AdamW, lr 0.0004' in found and 'PipelineSwitchHook left out' in found


def test_every_scale_is_set_in_the_averaged_weights_too(trained):
    checkpoint = torch.load(trained, map_location='cpu', weights_only=False)
    for part in ('state_dict', 'ema_state_dict'):
        flags = {key: bool(value.all()) for key, value in checkpoint[part].items()
                 if key.endswith('.calibrated')}
        unset = [key for key, flag in flags.items() if not flag]
        # Class logits are accumulators, which have no scale of their own.
        assert len(flags) > 50 and len(unset) == 3 and all('|rtm_cls|' in key for key in unset)


def test_integers_and_hbm_are_evaluated_alike(run, trained, deployed):
    scores = []
    for model, stage in ((trained, 'int'), (deployed, 'hbm')):
        run('test.py', 'my_rtmdet.py', model, '--stage', stage, '--work-dir', f'test_{stage}')
        logs = '\n'.join(file.read_text() for file in (run.folder / f'test_{stage}').rglob('*.log'))
        scores.append(re.findall(r'[ /]coco/(bbox_\w+): (\S+)', logs))
    assert len(scores[0]) >= 6 and scores[0] == scores[1]


def test_pictures_are_drawn_from_the_artefact_alone(run, deployed):
    run('infer.py', deployed, 'digits/val', '--out', 'seen')
    drawn = list((run.folder / 'seen').rglob('*.jpg')) + list((run.folder / 'seen').rglob('*.png'))
    assert len(drawn) == 2
