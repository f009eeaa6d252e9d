"""Trainings of a tiny detector that save in every way that a stock config can ask for."""
import os
from pathlib import Path
from typing import Dict, List, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
IMAGES = dict(train=6, val=2)

DETECTOR = """
_base_ = {base!r}
bpu = dict(input_shape=(64, 64), calibration=dict(num_batches=1, observer='minmax'))
model = dict(backbone=dict(base_channels=8, stem_channels=8),
             neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
             bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1))
data = {data!r}
train_dataloader = dict(batch_size=2, dataset=dict(lmdb=data + '/train_lmdb'))
val_dataloader = dict(batch_size=2, dataset=dict(lmdb=data + '/val_lmdb'))
test_dataloader = val_dataloader
val_evaluator = dict(lmdb=data + '/val_lmdb')
test_evaluator = val_evaluator
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=6)]
train_cfg = dict(max_epochs=3, val_interval=1)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1), logger=dict(interval=1))
log_level = 'WARNING'
"""


class Recipe(NamedTuple):
    """A training: what its config says more than :data:`DETECTOR`, and how it is begun."""
    config: str
    stage: str = 'float'
    from_float: bool = False


RECIPES: Dict[str, Recipe] = {
    'epochs': Recipe(''),
    'best': Recipe("default_hooks['checkpoint'].update(save_best='auto')\n"),
    'iterations': Recipe(
        "train_dataloader['sampler'] = dict(type='InfiniteSampler')\n"
        "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=7, val_interval=3)\n"
        "default_hooks['checkpoint'].update(by_epoch=False, interval=2, save_best='auto')\n"),
    'within_epochs': Recipe(
        "default_hooks['checkpoint'].update(by_epoch=False, interval=2, max_keep_ckpts=2)\n"),
    'ema': Recipe("custom_hooks = [dict(type='EMAHook', momentum=0.2)]\n", from_float=True),
    'qat': Recipe("train_cfg = dict(max_epochs=2, val_interval=2)\n", 'qat', from_float=True),
}
"""Name -> training."""


def write_data(folder: Path) -> Path:
    """Pack a few of the embedded digits; returns the folder that holds them."""
    from mmdet_bpu.datasets import pack_coco
    from mmdet_bpu.datasets.digits import make_digits
    drawn = make_digits(folder / 'drawn', 0, IMAGES['train'], IMAGES['val'])
    for split in IMAGES:
        pack_coco(drawn / split, drawn / 'annotations' / f'{split}.json', folder / f'{split}_lmdb')
    return folder


def command(folder: Path, name: str, work_dir: Path) -> List[str]:
    """The command line of a recipe that a job scheduler can repeat; its config is written.

    Args:
        folder (Path): Holds the data of :func:`write_data`, and ``float.pth``, what recipes that
            begin with weights begin with.
        name (str): Of a recipe.
        work_dir (Path): Where it trains.
    """
    recipe = RECIPES[name]
    config = folder / f'tiny_{name}.py'
    base = str(ROOT / 'configs' / 'demo' / 'digits_retinanet.py')
    text = DETECTOR.format(base=base, data=str(folder)) + recipe.config
    if not config.is_file():
        config.write_text(text, encoding='utf-8')
    begun = ['--load-from', os.fspath(folder / 'float.pth')] if recipe.from_float else []
    return [str(ROOT / 'tools' / 'train.py'), str(config), '--stage', recipe.stage, *begun,
            '--resume', '--work-dir', str(work_dir)]
