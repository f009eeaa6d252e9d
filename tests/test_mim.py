"""The main job as a user of mim runs it: installed, killed, resumed."""
import json
import math
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip('mim', reason='openmim is not installed')

COCO128 = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'coco128'
IMAGES = dict(train=2, val=1)
LAYERS = ['model.encoder.num_layers=1', 'model.decoder.num_layers=1']  # of the stock detector's six
PATIENCE = 400  # s, of one run on a busy machine


class SmallSet(NamedTuple):
    """A packed data set."""
    num_classes: int
    options: list[str]  # overrides that point a config at it


@pytest.fixture
def mim_train(installed_python, installed_environment, tmp_path):
    """Function (*arguments) -> running ``mim train mmdet_bpu configs/qat.py *arguments``.

    It runs in an empty folder, in a process group of its own; output goes to ``mim.log``.
    """
    groups = []

    def start(*arguments: object) -> subprocess.Popen:
        command = [installed_python, '-c', 'from mim.cli import cli; cli()', 'train', 'mmdet_bpu',
                   'configs/qat.py', *map(str, arguments)]
        with open(tmp_path / 'mim.log', 'w', encoding='utf-8') as log:
            process = subprocess.Popen(
                command, cwd=tmp_path, env=installed_environment, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True)
        groups.append(process)
        return process

    yield start
    for process in groups:
        kill(process)
    # Checkpoints of a ResNet-50 with its optimizer take 0.5 GB each.
    shutil.rmtree(tmp_path / 'work_dirs', ignore_errors=True)
    for file in tmp_path.glob('*.pth'):
        file.unlink()


def kill(process: subprocess.Popen) -> None:
    """SIGKILL for mim and the training that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def wait_for(file: Path, process: subprocess.Popen, log: Path) -> None:
    """Return when ``file`` is there; fail if the process ends before."""
    deadline = time.monotonic() + PATIENCE
    while not file.exists():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.02)


def first_images(annotations: Path, count: int) -> dict:
    """A COCO data set's fields, reduced to its first ``count`` images that hold objects."""
    coco = json.loads(annotations.read_text())
    filled = {annotation['image_id'] for annotation in coco['annotations']}
    images = [image for image in coco['images'] if image['id'] in filled][:count]
    ids = {image['id'] for image in images}
    return dict(coco, images=images,
                annotations=[item for item in coco['annotations'] if item['image_id'] in ids])


@pytest.fixture
def small_set(tmp_path) -> SmallSet:
    """Two images to train on and one to validate on: of coco128 if it is at hand, else digits."""
    from mmdet_bpu.datasets import pack_coco
    from mmdet_bpu.datasets.digits import make_digits
    if COCO128.is_dir():
        folder, suffix, num_classes = COCO128, '2017', 80
    else:
        folder = make_digits(tmp_path / 'digits', 0, IMAGES['train'], IMAGES['val'])
        suffix, num_classes = '', 10
    options = [f'model.bbox_head.num_classes={num_classes}', *LAYERS, 'val_evaluator.type=CocoLMDBMetric']
    for split, count in IMAGES.items():
        source = next((folder / 'annotations').glob(f'*{split}{suffix}.json'))
        annotations = tmp_path / f'{split}.json'
        annotations.write_text(json.dumps(first_images(source, count)))
        lmdb = tmp_path / f'{split}_lmdb'
        pack_coco(folder / f'{split}{suffix}', annotations, lmdb)
        loader = f'{split}_dataloader'
        options += [f'{loader}.dataset.type=CocoLMDBDataset', f'{loader}.dataset.lmdb={lmdb}',
                    f'{loader}.batch_size=1', f'{loader}.num_workers=0',
                    f'{loader}.persistent_workers=False']
    return SmallSet(num_classes, [*options, f'val_evaluator.lmdb={lmdb}'])


def write_float_checkpoint(path: Path, num_classes: int) -> None:
    """Random weights of the stock detector, as mmengine's ``Runner`` saves them."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.hub import get_config
    from mmengine.registry import DefaultScope

    cfg = get_config('mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py').model
    cfg.bbox_head.num_classes = num_classes
    cfg.encoder.num_layers = cfg.decoder.num_layers = 1
    cfg.backbone.init_cfg = None
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg)
        model.init_weights()  # the constructor leaves level_embed as the memory was
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=50, bpu_stage='float')), path)


def losses(work_dir: Path) -> list[float]:
    """Every training loss that the runs in ``work_dir`` logged, the oldest first."""
    lines = [json.loads(line) for file in sorted(work_dir.glob('*/vis_data/scalars.json'))
             for line in file.read_text().splitlines()]
    return [line['loss'] for line in lines if 'loss' in line]


def test_without_a_checkpoint_it_says_what_to_give(mim_train, tmp_path):
    process = mim_train()
    # mim reports a failing child with a traceback and an exit code of its own.
    assert process.wait(PATIENCE) != 0
    output = (tmp_path / 'mim.log').read_text()
    assert "error: stage 'qat' needs a checkpoint to start from" in output
    assert '--load-from FILE' in output and 'work_dirs/calibration' in output


def test_a_killed_run_resumes(mim_train, small_set, tmp_path):
    import torch

    checkpoint, log = tmp_path / 'stock.pth', tmp_path / 'mim.log'
    write_float_checkpoint(checkpoint, small_set.num_classes)
    work_dir = tmp_path / 'work_dirs' / 'qat'
    options = ['--cfg-options', *small_set.options, 'bpu.input_shape=(64,96)',
               'bpu.calibration.num_batches=1', 'train_cfg.max_epochs=2',
               'train_cfg.val_interval=2',
               'default_hooks.logger.interval=1', 'default_hooks.checkpoint.max_keep_ckpts=1']

    process = mim_train('--load-from', checkpoint, *options)
    wait_for(work_dir / 'last_checkpoint', process, log)
    kill(process)
    assert [file.name for file in work_dir.glob('*.pth')] == ['epoch_1.pth']
    output = log.read_text()
    assert 'the weights are float ones: calibrating first' in output

    checkpoint.unlink()  # a resumed run needs no source
    process = mim_train('--resume', *options)
    assert process.wait(PATIENCE) == 0, log.read_text()[-3000:]
    assert 'resumed epoch: 1, iter: 2' in log.read_text()
    final = torch.load(work_dir / 'epoch_2.pth', weights_only=True, mmap=True)
    assert (final['meta']['epoch'], final['meta']['iter']) == (2, 4)
    assert final['meta']['bpu_stage'] == 'qat'
    logged = losses(work_dir)
    # The killed run may have begun its third iteration.
    assert len(logged) >= 4 and all(math.isfinite(loss) for loss in logged)
