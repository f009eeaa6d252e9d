"""What the deployed input costs: float mAP by the stock test pipeline, letterboxed and stretched.

    python benchmarks/letterbox.py CONFIG CHECKPOINT

Takes a detector of the digits, such as the one of ``configs/demo``, and evaluates it three times on
pictures of digits of unlike shapes: as mmdet tests (ratio kept, padded to what the data
preprocessor asks), as it is deployed by default, and stretched. Prints JSON.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from machine_facts import machine
from sklearn.datasets import load_digits

from mmdet_bpu.apis import load_config, settings_of
from mmdet_bpu.datasets.digits import CLASSES, SPLITS, compose_image, digit_pools

ROOT = Path(__file__).resolve().parent.parent
SIZES = ((160, 160), (120, 160), (160, 120), (96, 160), (160, 96))  # height, width, px
SEED, SPLIT = 0, 'val'
RUNS = {  # preprocessing -> options of tools/test.py
    'stock': [],
    'deployed': ['--deploy-preprocessing'],
    'stretch': ['--deploy-preprocessing', '--cfg-options', 'bpu.resize=stretch'],
}
CONFIG = '''
_base_ = {config!r}
test_dataloader = dict(
    _delete_=True, batch_size=8, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root={data!r}, ann_file='annotations.json',
        data_prefix=dict(img='images/'), metainfo=dict(classes={classes!r}), test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale={scale!r}, keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                                                  'scale_factor'))]))
test_evaluator = dict(
    _delete_=True, type='CocoMetric', ann_file={data!r} + '/annotations.json', metric='bbox')
'''


def write_pictures(folder: Path, count: int) -> None:
    """A COCO set of the scans that digits are validated with, on pictures of all :data:`SIZES`."""
    digits, pool = load_digits(), digit_pools(SEED)[SPLIT]
    (folder / 'images').mkdir(parents=True)
    images, annotations = [], []
    for index in range(count):
        rng = np.random.default_rng([SEED, SPLITS.index(SPLIT), index])
        height, width = SIZES[index % len(SIZES)]
        image, _, placed = compose_image(rng, pool, digits, (height, width))
        cv2.imwrite(str(folder / 'images' / f'{index}.png'), image)
        images.append(dict(id=index, file_name=f'{index}.png', height=height, width=width))
        for scan, box in placed:
            annotations.append(dict(
                id=len(annotations) + 1, image_id=index, bbox=list(box), area=box[2] * box[3],
                iscrowd=0, category_id=int(digits.target[scan])))
    categories = [dict(id=label, name=name) for label, name in enumerate(CLASSES)]
    (folder / 'annotations.json').write_text(json.dumps(
        dict(images=images, annotations=annotations, categories=categories)))


def write_config(path: Path, config: Path, data: Path) -> None:
    """The float config with the pictures as its test data, at the scale that it is deployed at."""
    cfg = load_config(str(config), 'float')
    cfg.bpu.deploy_preprocessing = True
    height, width = settings_of(cfg)['input_shape']
    path.write_text(CONFIG.format(config=str(config), data=str(data), classes=CLASSES,
                                  scale=(width, height)))


def metrics_of(config: Path, checkpoint: Path, folder: Path, options: list) -> dict:
    """What ``tools/test.py`` measures in stage float; its output is shown if it fails."""
    out = folder / 'metrics.json'
    command = [sys.executable, ROOT / 'tools' / 'test.py', config, checkpoint, '--stage', 'float',
               '--work-dir', folder / 'work', '--out', out, *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{done.stdout[-2000:]}{done.stderr[-2000:]}')
    return json.loads(out.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--images', type=int, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_pictures(folder / 'data', args.images)
        config = folder / 'unlike_shapes.py'
        write_config(config, args.config.resolve(), folder / 'data')
        # A detector that finds nothing has no metric.
        found = {name: metrics_of(config, args.checkpoint.resolve(), folder, options).get(
            'coco/bbox_mAP', 0.0) for name, options in RUNS.items()}
    falls = {name: round(found['stock'] - value, 4) for name, value in found.items()}
    print(json.dumps(dict(mAP=found, falls_by=falls, images=args.images, sizes=SIZES,
                          machine=machine()), indent=1))


if __name__ == '__main__':
    main()
