"""Settings: a config's values exchanged for odd ones, in its file and as overrides."""
import copy
import random
from pathlib import Path
from typing import Any, List, Tuple

from fuzzing.case import Case
from mmdet_bpu import apis

STAGES = ('float', 'calibration', 'qat', 'int', 'hbm', None)
ODD = ('None', 'True', '0', '-1', '5', '1.5', '10**30', "float('nan')", "float('inf')", "''", "'x'",
       "'\\udc80'", "b'x'", '[]', '[None]', '[[]]', '()', '(1, 2, 3)', '{}', "{'type': 'x'}",
       "{'type': 5}", '{1: 2}', '{None}', 'object()', 'print', 'lambda: 0', '[{}]', "['x', 5]",
       "{'_delete_': True}", '-10**400', '1j', 'range(3)')
# Options of a command are text that mmengine's action reads.
ODD_TEXTS = ('', 'None', '-1', '1e400', 'nan', '[', '[1,(2', "'x'", 'True', '[5]', '(1,2,3)',
             '\udc80', '1' * 500, 'a=b', '{}', '5')
# (value, whether it is a valid one). An observer's name is a config by itself.
OBSERVERS = (("'mse'", True), ("'minmax'", True), ("dict(type='mse', bins=64, candidates=3)", True),
             ("dict(type='minmax', bins=2)", False), ("dict(type='mse', bins=3)", False),
             ("dict(type='mse', bins=-2)", False), ("dict(type='mse', bins='x')", False),
             ("dict(type='mse', bins=10**12)", False), ("dict(type='mse', candidates=0)", False),
             ("dict(type='mse', candidates=float('nan'))", False), ("dict(type='max')", False),
             ('dict(bins=64)', False), ('5', False), ("['mse']", False), ("dict(type=['mse'])", False))
RULES = (("dict(site='*', dtype='int16')", True), ("dict(op='conv2d', observer='minmax')", True),
         ("dict(module='Linear', scale=0.5)", True), ("dict(site='*', scale=2**-60)", True),
         ("dict(site='*', scale=10**400)", False), ("dict(site='*', scale=1e-300)", False),
         ("dict(site='*', scale=-1.0)", False), ("dict(site='*', scale=[1.0])", False),
         ("dict(site='*', scale=1j)", False), ("{'site': '*', 1: 2, 'x': 3}", False),
         ("dict(site='*', dtype={})", False), ("dict(site='*', dtype=None)", False),
         ("dict(site=None, dtype='int8')", False), ("dict(site='*')", False), ('5', False),
         ("dict(site='*', observer=dict(type='mse', bins=1))", False), ('dict()', False))
SHAPES = (('(64, 96)', True), ('[64, 96]', True), ('(10**9, 10**9)', False), ('(64, 10**30)', False),
          ('(16384, 16384)', False), ('(64.0, 96)', False), ('(64, True)', False), ('64', False),
          ("'64'", False), ('(64, 96, 3)', False), ('(-64, 96)', False),
          ("(float('nan'), 96)", False))
FIELDS = (('bpu.calibration.observer', OBSERVERS), ('bpu.input_shape', SHAPES))
PIPELINE = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 64), keep_ratio=True),
    dict(type='Pad', size_divisor=32, pad_val=dict(img=(114, 114, 114))),
    dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]
LOADER = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
              dataset=dict(type='CocoDataset', ann_file='a.json', data_prefix=dict(img='i/'),
                           metainfo=dict(classes=('a', 'b')), pipeline=PIPELINE))
BASE = dict(
    default_scope='mmdet',
    model=dict(
        type='RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.7, 116.3, 103.5],
                               std=[58.4, 57.1, 57.4], bgr_to_rgb=True, pad_size_divisor=32),
        backbone=dict(type='ResNet', depth=18, base_channels=8, num_stages=4,
                      out_indices=(2, 3), norm_cfg=dict(type='BN', requires_grad=True)),
        neck=dict(type='FPN', in_channels=[32, 64], out_channels=16, num_outs=3),
        bbox_head=dict(
            type='RetinaHead', num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1,
            anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4,
                                  scales_per_octave=3, ratios=[0.5, 1.0, 2.0],
                                  strides=[16, 32, 64]),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[1.0, 1.0, 1.0, 1.0]),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True, loss_weight=1.0)),
        test_cfg=dict(nms_pre=100, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5),
                      max_per_img=10)),
    train_dataloader=LOADER, val_dataloader=LOADER, test_dataloader=LOADER,
    val_evaluator=dict(type='CocoMetric', ann_file='a.json'),
    train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=1),
    val_cfg=dict(type='ValLoop'),
    optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
    param_scheduler=[dict(type='MultiStepLR', milestones=[2], gamma=0.1)],
    default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
    custom_hooks=[dict(type='EMAHook'), dict(type='PipelineSwitchHook', switch_epoch=2,
                                             switch_pipeline=PIPELINE)])


class Settings:
    """Half of the cases say whether the settings are valid; the others only must not be uncaught."""
    name = 'settings'

    def prepare(self, folder: Path) -> None:
        """Write the base config, and read what it is without a mutation."""
        self.folder = folder
        text = '\n'.join(f'{name} = {value!r}' for name, value in BASE.items())
        (folder / 'base.py').write_text(text + '\n')
        self.paths = _paths(BASE)

    def case(self, rng: random.Random) -> Case:
        """A case's data: lines of the config, overrides, stage, and True, False or None for whether
        they are valid."""
        mutation = rng.choice([self._known, self._known, self._odd_value, self._odd_value,
                               self._odd_option, self._odd_text, self._order])
        lines, options, valid, words = mutation(rng)
        stage = rng.choice(STAGES[1:5] if valid is not None else STAGES)
        return Case((lines, options, stage, valid), f'stage {stage}: {words}')

    def run(self, case: Case) -> str:
        """See :class:`fuzzing.case.Kind`."""
        lines, options, stage, valid = case.data
        path = self.folder / 'case.py'
        path.write_bytes('\n'.join(["_base_ = 'base.py'", *lines, '']).encode(
            'utf-8', 'surrogateescape'))
        cfg = apis.load_config(str(path), stage, options)
        settings = apis.settings_of(cfg)
        if valid is False or apis.settings_of(cfg) != settings:
            return 'different'
        if valid is None:
            apis.build_detector(cfg)
        return 'equal'

    def _known(self, rng: random.Random) -> Tuple[List[str], List[str], bool, str]:
        """A value that is known to be valid or not, of a field of ours."""
        if rng.random() < 0.4:
            rules = [rng.choice(RULES) for _ in range(rng.randint(1, 3))]
            text = f'[{", ".join(text for text, _ in rules)}]'
            return [f'bpu = dict(qconfig={text})'], [], all(valid for _, valid in rules), text
        field, values = rng.choice(FIELDS)
        text, valid = rng.choice(values)
        return [_assignment(field.split('.'), text)], [], valid, f'{field} = {text}'

    def _odd_value(self, rng: random.Random) -> Tuple[List[str], List[str], None, str]:
        """An odd value anywhere."""
        path = rng.choice([*self.paths, ('bpu', ), ('bpu', 'stage'), ('custom_imports', ),
                           ('default_scope', ), ('randomness', ), ('work_dir', )])
        text = rng.choice(ODD)
        return [*_replaced(BASE, path, text)], [], None, \
            f'{".".join(map(str, path))} = {text}'

    def _odd_option(self, rng: random.Random) -> Tuple[List[str], List[str], None, str]:
        path = '.'.join(map(str, rng.choice(self.paths)))
        if rng.random() < 0.3:
            path += rng.choice(['.x', '.0', '.type', '.x.y', '.', '..'])
        option = f'{path}={rng.choice(ODD_TEXTS)}'
        return [], [option], None, option

    def _odd_text(self, rng: random.Random) -> Tuple[List[str], List[str], None, str]:
        """Text that is no config."""
        line = rng.choice([
            '1 / 0', 'raise SystemExit(0)', 'import nothing_of_this_name', 'x = (', '\udcff\udcfe', 'def f(',
            "_base_ = 'case.py'", "_base_ = 'gone.py'", '_base_ = 5', "x = '{{ fileDirname }}'",
            "x = '{{ _base_.nothing }}'", 'from mmengine.config import read_base', '\0', 'bpu = 5',
            'class A: pass', 'custom_imports = dict(imports=["gone_module"])', 'x = open("/nowhere")',
            'model = None', 'globals().clear()', 'raise RecursionError'])
        return [line], [], None, repr(line)

    def _order(self, rng: random.Random) -> Tuple[List[str], List[str], bool, str]:
        """The same settings in another order and as another sequence."""
        items = [("march='nash-m'"), ('input_shape=[64, 96]'),
                 ("calibration=dict(num_batches=3, observer='minmax')")]
        rng.shuffle(items)
        return [f'bpu = dict({", ".join(items)})'], [], True, ', '.join(items)


def _paths(config: Any, path: Tuple = ()) -> List[Tuple]:
    """Places of all values of a config."""
    inner = config.items() if isinstance(config, dict) else \
        enumerate(config) if isinstance(config, (list, tuple)) else ()
    return [place for key, value in inner
            for place in ((*path, key), *_paths(value, (*path, key)))]


def _assignment(path: List[str], text: str) -> str:
    """A line that sets a nested field."""
    for name in reversed(path[1:]):
        text = f'dict({name}={text})'
    return f'{path[0]} = {text}'


def _replaced(config: dict, path: Tuple, text: str) -> List[str]:
    """A line that sets one place of a top-level value and leaves the rest of it as it was."""
    if len(path) == 1:
        return [f'{path[0]} = {text}']
    value = copy.deepcopy(config.get(path[0], {}))
    inner = value
    for key in path[1:-1]:
        if isinstance(inner[key], tuple):
            inner[key] = list(inner[key])
        inner = inner[key]
    if isinstance(inner, (dict, list)):
        inner[path[-1]] = _Source(text)
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        value = dict(value, _delete_=True) if path[0] in config else value
    return [f'{path[0]} = {value!r}']


class _Source:
    """Python text in the place of a value."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text
