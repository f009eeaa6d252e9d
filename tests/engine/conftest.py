"""A tiny detector on a tiny COCO set, and runs of its stages in this process."""
import copy
import functools
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmdet_bpu.engine.stages import load_config
from tests.random_checkpoints import random_checkpoints_of
from tests.stock_families import new_stock  # noqa: F401

SIDE = 64  # px
CLASSES = ('red', 'green', 'blue')
RUN_NUMBERS = itertools.count()

TINY = """
_base_ = 'mmdet::deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py'
randomness = dict(seed=3)
bpu = dict(input_shape=(64, 64), calibration=dict(num_batches=4, observer='minmax'))
model = dict(
    num_queries=10,
    num_feature_levels=2,
    backbone=dict(depth=18, base_channels=8, frozen_stages=0, out_indices=(2, 3), init_cfg=None),
    neck=dict(in_channels=[32, 64], out_channels=64, num_outs=2),
    encoder=dict(num_layers=1, layer_cfg=dict(
        self_attn_cfg=dict(embed_dims=64, num_levels=2),
        ffn_cfg=dict(embed_dims=64, feedforward_channels=64))),
    decoder=dict(num_layers=1, layer_cfg=dict(
        self_attn_cfg=dict(embed_dims=64),
        cross_attn_cfg=dict(embed_dims=64, num_levels=2),
        ffn_cfg=dict(embed_dims=64, feedforward_channels=64))),
    positional_encoding=dict(num_feats=32),
    bbox_head=dict(num_classes=3, embed_dims=64),
    test_cfg=dict(max_per_img=10))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoiceResize', scales=[(64, 64), (80, 80)], keep_ratio=True),
    dict(type='PackDetInputs')]
dataset = dict(
    type='CocoDataset', data_root=DATA_ROOT, ann_file='annotations.json',
    data_prefix=dict(img='images/'), metainfo=dict(classes=('red', 'green', 'blue')))
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(_delete_=True, pipeline=train_pipeline, **dataset))
val_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(_delete_=True, test_mode=True, **dataset, pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                                              'scale_factor'))]))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=DATA_ROOT + '/annotations.json')
test_evaluator = val_evaluator
"""


def draw_coco_set(root: Path, count: int = 8) -> None:
    """Write ``count`` images with one filled rectangle each, in COCO format."""
    rng = np.random.default_rng(0)
    (root / 'images').mkdir(parents=True)
    images, annotations = [], []
    for index in range(count):
        # Not square, so that deploy preprocessing differs from the stock one.
        height, width = SIDE, SIDE - 16
        image = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
        category = index % len(CLASSES)
        x, y = (int(value) for value in rng.integers(0, 20, 2))
        w, h = (int(value) for value in rng.integers(12, 24, 2))
        image[y:y + h, x:x + w, 2 - category] = 255
        cv2.imwrite(str(root / 'images' / f'{index}.png'), image)
        images.append(dict(id=index, file_name=f'{index}.png', width=width, height=height))
        annotations.append(dict(id=index + 1, image_id=index, category_id=category, iscrowd=0,
                                bbox=[x, y, w, h], area=w * h))
    categories = [dict(id=index, name=name) for index, name in enumerate(CLASSES)]
    (root / 'annotations.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories)))


@pytest.fixture(scope='session')
def tiny_config(tmp_path_factory) -> Path:
    """Path of a plain mmdet config of the tiny detector; its data lies beside it."""
    root = tmp_path_factory.mktemp('tiny')
    draw_coco_set(root / 'data')
    path = root / 'tiny.py'
    path.write_text(TINY.replace('DATA_ROOT', repr(str(root / 'data'))))
    return path


@pytest.fixture(scope='session')
def staged(tiny_config):
    """Function (stage, work_dir, **overrides) -> config of a short run of that stage."""
    # mmengine reads a hundred metafiles to find a config of mmdet: once per stage is enough.
    read = functools.cache(functools.partial(load_config, str(tiny_config)))

    def build(stage: str, work_dir: Path, **overrides):
        options = {
            'default_hooks.logger.interval': 1,
            # mmengine keeps loggers and message hubs by this name for the life of the process.
            'experiment_name': f'tiny_{next(RUN_NUMBERS)}',
            'work_dir': str(work_dir),
            'log_level': 'WARNING',
        }
        if stage in ('float', 'qat'):
            options['train_cfg.max_epochs'] = 2
        options.update({key.replace('__', '.'): value for key, value in overrides.items()})
        cfg = copy.deepcopy(read(stage))
        cfg.merge_from_dict(options)
        cfg.visualizer.name = options['experiment_name']
        # Formatting the config's text, at every checkpoint, takes longer than these runs.
        return Config(cfg.to_dict(), format_python_code=False)

    return build


@pytest.fixture(scope='session')
def trained(staged, tmp_path_factory) -> Path:
    """Folder with a finished tiny_float, tiny_calibration and tiny_qat run of two epochs each."""
    from mmdet_bpu.engine.runner import BPURunner
    root = tmp_path_factory.mktemp('work_dirs')
    for stage in ('float', 'calibration', 'qat'):
        BPURunner.from_cfg(staged(stage, root / f'tiny_{stage}')).train()
    return root


@pytest.fixture(scope='session')
def random_checkpoints(staged, tmp_path_factory) -> dict:
    """Stage (float, calibration) -> checkpoint of the tiny detector with the same random weights."""
    folder = tmp_path_factory.mktemp('random')
    made = random_checkpoints_of(staged('calibration', folder), folder)
    return {stage: str(path) for stage, path in made.items()}
