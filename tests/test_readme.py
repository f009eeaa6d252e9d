"""The commands of README.md, run in their order in a fresh folder.

A block that cannot be run says why on the line before it: ``<!-- not run: reason -->``. Detectors
are made small and data few; nothing else of a command is changed, but for the words in
:data:`WORDS`.
"""
import re
import shlex
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
README = CHECKOUT / 'README.md'
BLOCK = re.compile(r'(<!-- not run: .+? -->\n)?^```bash\n(.*?)^```', re.MULTILINE | re.DOTALL)
# What a reader replaces by something of their own.
WORDS = {
    'IMAGES': 'digits/train',
    'ANNOTATIONS': 'digits/annotations/train.json',
    'CONFIG': 'configs/qat.py',
    'CHECKPOINT': 'stock.pth',
}
# Overrides for every command that takes a config: 1 + 1 layers, 20 tokens, 2 images a batch.
SMALL = """
    model.num_queries=10 model.num_feature_levels=2 model.test_cfg.max_per_img=10
    model.backbone.depth=18 model.backbone.base_channels=8 model.backbone.out_indices=(2,3)
    model.backbone.init_cfg=None
    model.neck.in_channels=[32,64] model.neck.num_outs=2
    model.encoder.num_layers=1 model.encoder.layer_cfg.self_attn_cfg.num_levels=2
    model.decoder.num_layers=1 model.decoder.layer_cfg.cross_attn_cfg.num_levels=2
    bpu.input_shape=(64,64) bpu.calibration.num_batches=1 model.bbox_head.num_classes=10
    train_dataloader.num_workers=0 train_dataloader.persistent_workers=False
    val_dataloader.num_workers=0 val_dataloader.persistent_workers=False
    test_dataloader.num_workers=0 test_dataloader.persistent_workers=False
""".split()
# Further ones where data is read: what the README packs, instead of COCO.
DATA = [f'{split}_dataloader.dataset.{option}' for split in ('train', 'val', 'test')
        for option in ('type=CocoLMDBDataset', 'lmdb=train_lmdb')]
DATA += [f'{split}_evaluator.{option}' for split in ('val', 'test')
         for option in ('type=CocoLMDBMetric', 'lmdb=train_lmdb')]


def commands() -> list[list[str]]:
    """Words of every command that is run."""
    text = README.read_text(encoding='utf-8')
    code = ''.join(code for skipped, code in BLOCK.findall(text) if not skipped)
    lines = (shlex.split(line, comments=True) for line in code.replace('\\\n', ' ').splitlines())
    return [line for line in lines if line]


def tool_of(command: list[str]) -> list[str] | None:
    """The tool that a command starts, with its arguments; None if it starts none."""
    if command[:3] == ['mim', 'train', 'mmdet_bpu']:
        return ['tools/train.py', *command[3:]]
    first = 1 if re.fullmatch(r'(.*/)?python3?', command[0]) else 0
    return command[first:] if re.match(r'tools/\w+\.py$', (command[first:] or [''])[0]) else None


def overrides(tool: list[str]) -> list[str]:
    """Arguments that make a command's detector, data and training small."""
    if 'add_config_options(' not in (CHECKOUT / tool[0]).read_text():
        return []
    options = ['--cfg-options', *SMALL]
    if tool[0] in ('tools/train.py', 'tools/test.py'):
        options += DATA
    if tool[:2] == ['tools/train.py', 'configs/float.py']:
        options += ['train_cfg.max_epochs=1']
    return options


def substituted(word: str) -> str:
    return re.sub(r'\b(' + '|'.join(WORDS) + r')\b', lambda found: WORDS[found.group()], word)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A fresh folder with the checkout's configs, some images and stock weights."""
    from mmdet_bpu.datasets.digits import make_digits
    (tmp_path / 'configs').symlink_to(CHECKOUT / 'configs')
    make_digits(tmp_path / 'digits', num_train=2, num_val=2)
    write_stock_checkpoint(tmp_path / 'stock.pth')
    return tmp_path


def write_stock_checkpoint(path: Path) -> None:
    """Random weights of the small detector, as stock mmengine saves them."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.config import DictAction
    from mmengine.registry import DefaultScope

    from mmdet_bpu.engine.stages import load_config
    options = dict(option.split('=', 1) for option in SMALL)
    options = {key: DictAction._parse_iterable(value) for key, value in options.items()}
    cfg = load_config(str(CHECKOUT / 'configs' / 'float.py'), cfg_options=options)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        model.init_weights()  # the constructor leaves level_embed as the memory was
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=50)), path)


def test_commands_run_as_they_stand(folder, tool_process):
    targets = re.findall(r'^([\w-]+):', (CHECKOUT / 'Makefile').read_text(), re.MULTILINE)
    ran = 0
    for command in commands():
        tool = tool_of(command)
        if command[0] == 'make':
            unknown = [word for word in command[1:] if '=' not in word and word not in targets]
            assert unknown == [], command
        elif tool is not None:
            arguments = [*map(substituted, tool[1:]), *overrides(tool)]
            done = tool_process(Path(tool[0]).name, *arguments, cwd=folder)
            assert done.returncode == 0, f'{shlex.join(command)}\n{done.stderr[-3000:]}'
            ran += 1
        else:
            assert command[0] in ('cd', 'git'), f'not known how to run: {shlex.join(command)}'
    assert ran


def test_blocks_that_are_not_run_are_marked_with_a_reason():
    text = README.read_text(encoding='utf-8')
    assert text.count('```bash\n') == len(BLOCK.findall(text))
