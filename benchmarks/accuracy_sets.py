"""Data sets of the accuracy benchmark, and the configs that small detectors are trained on them
with.

The digits have configs of their own, ``configs/demo/digits_*.py``. Any other set takes them over
with its classes and input shape, as many steps, and flips, which digits do not bear.
"""
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Tuple

from mmdet_bpu.errors import BpuError

ROOT = Path(__file__).resolve().parent.parent
MODELS = dict(deformable='float', deformable_r50='r50', retinanet='retinanet', rtmdet='rtmdet',
              dino='dino')
"""Model -> the end of its config's name, ``configs/demo/digits_*.py``."""
DIGITS, BCCD = 'digits', 'bccd'
BCCD_FOLDER = ROOT.parent / 'shared' / 'data' / 'bccd'
SPLITS = ('train', 'val')
MOST = 100  # detections of a picture, and queries
QAT_BATCH = 8
QAT_STEPS = 188  # an epoch of the digits


@dataclass(frozen=True)
class PackedSet:
    """A packed COCO data set.

    Attributes:
        name (str): Of its results.
        folder (Path): Holds ``train_lmdb`` and ``val_lmdb``.
        shape (tuple[int, int], optional): (height, width) of the network's input, px; None for that
            of the digits' configs.
    """
    name: str
    folder: Path
    shape: Optional[Tuple[int, int]] = None

    def store(self, split: str) -> Any:
        """Its database of a split.

        Raises:
            BpuError: It is not there, or not one.
        """
        from mmdet_bpu.datasets.lmdb_store import open_store
        path = self.folder / f'{split}_lmdb'
        if not path.exists():
            raise BpuError(f'--set {self.folder}: expected a folder with train_lmdb and val_lmdb, found '
                           f'no {path.name}; pack it first: tools/pack_coco_lmdb.py '
                           f'--data-root {self.folder} --split {split}')
        return open_store(path)

    @property
    def images(self) -> int:
        """int: To train on."""
        return len(self.store('train'))

    @property
    def qat_epochs(self) -> int:
        """int: As many as give the steps that QAT of the digits has in one."""
        return -(-QAT_STEPS // self.qat_steps)

    @property
    def qat_steps(self) -> int:
        """int: Of an epoch of QAT."""
        return -(-self.images // QAT_BATCH)

    def config(self, model: str, out: Path, epochs: Optional[int] = None) -> Path:
        """The config of a model on this set; written as ``out`` where it has none.

        Args:
            model (str): One of :data:`MODELS`.
            out (Path): File to write.
            epochs (int, optional): Of float training. Defaults to as many steps as on the digits.
        """
        from mmengine.config import Config
        path = ROOT / 'configs' / 'demo' / f'digits_{MODELS[model]}.py'
        if self.shape is None and epochs is None:
            return path
        cfg = Config.fromfile(path)
        if self.shape is not None:
            self._take_over(cfg)
        steps = -(-self.images // cfg.train_dataloader.batch_size)
        _schedule(cfg, steps, epochs)
        out.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(out)
        return out

    def _take_over(self, cfg: Any) -> None:
        """Classes, sizes and flips of this set."""
        cfg.bpu = dict(cfg.get('bpu', {}), input_shape=self.shape)
        classes = tuple(each['name'] for each in self.store('train').coco_fields()['categories'])
        cfg.model.bbox_head.num_classes = len(classes)
        if 'num_queries' in cfg.model:
            cfg.model.num_queries = MOST
        cfg.model.test_cfg.max_per_img = MOST
        before = cfg.val_dataloader.dataset.pipeline[1].scale[0]
        pipelines = [cfg[name].dataset.pipeline for name in (
            'train_dataloader', 'val_dataloader', 'test_dataloader')]
        pipelines += [hook.switch_pipeline for hook in cfg.get('custom_hooks', ())
                      if 'switch_pipeline' in hook]
        for pipeline in pipelines:
            for step in pipeline:
                self._resize(step, before)
            if any(step.type == 'LoadAnnotations' for step in pipeline):
                pipeline.insert(-1, dict(type='RandomFlip', prob=0.5))
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            cfg[name].dataset.metainfo = dict(classes=classes)
        for name in [name for name in cfg if name not in KEPT]:
            cfg.pop(name)  # variables that others were made of

    def _resize(self, step: Any, before: int) -> None:
        """Sizes of a transform, (width, height), as multiples of the ones ``before``."""
        height, width = self.shape
        for name in ('scale', 'img_scale', 'crop_size', 'size'):
            if name in step:
                times = step[name][0] // before
                step[name] = width * times, height * times


KEPT = ('default_scope', 'bpu', 'model', 'train_dataloader', 'val_dataloader', 'test_dataloader',
        'val_evaluator', 'test_evaluator', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg',
        'test_cfg', 'default_hooks', 'custom_hooks', 'custom_imports', 'env_cfg', 'visualizer',
        'vis_backends',
        'log_processor', 'log_level', 'load_from', 'resume', 'randomness', 'auto_scale_lr')


def _schedule(cfg: Any, steps: int, epochs: Optional[int]) -> None:
    """Give a config's float training another number of epochs, of ``steps`` each."""
    all_steps = max(scheduler['end'] for scheduler in cfg.param_scheduler)
    before = cfg.train_cfg.max_epochs
    epochs = epochs or math.ceil(all_steps / steps)
    last = steps * epochs
    for scheduler in cfg.param_scheduler:
        if scheduler['end'] == all_steps:
            begin = min(scheduler['begin'], last // 2)
            scheduler.update(begin=begin, end=last, T_max=last - begin)
        else:  # the warm-up
            scheduler['end'] = max(min(scheduler['end'], last // 2), 1)
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = epochs
    for hook in cfg.get('custom_hooks', ()):
        if 'switch_epoch' in hook:
            hook.switch_epoch = epochs * hook.switch_epoch // before


def packed(name: str, work_dir: Path, shape: Optional[Tuple[int, int]], make: Any) -> PackedSet:
    """The set of that name, made or packed if it is one of the two that have names.

    Args:
        name (str): ``digits``, ``bccd`` or a folder.
        work_dir (Path): Where the two are made.
        shape (tuple[int, int], optional): (height, width) of the network's input, px.
        make (Callable): Function (folder of the digits) that makes them.
    """
    if name == DIGITS:
        folder = work_dir / 'data' / DIGITS
        make(folder)
        return PackedSet(DIGITS, folder, shape)
    shape = shape or (240, 320)
    if name != BCCD:
        found = PackedSet(Path(name).resolve().name, Path(name), shape)
    else:
        found = PackedSet(BCCD, work_dir / 'data' / BCCD, shape)
        _pack_bccd(found.folder)
    for split in SPLITS:
        found.store(split)
    return found


def _pack_bccd(folder: Path) -> None:
    from mmdet_bpu.datasets import pack_coco
    if not BCCD_FOLDER.is_dir():
        raise BpuError(f'--set {BCCD}: expected the images in {BCCD_FOLDER}, found none; give a '
                       'packed folder of your own')
    for split in SPLITS:
        if not (folder / f'{split}_lmdb').exists():
            pack_coco(BCCD_FOLDER / split, BCCD_FOLDER / 'annotations' / f'instances_{split}.json',
                      folder / f'{split}_lmdb')
