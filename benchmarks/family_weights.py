"""Stock mmdet detectors with random weights under which their float heads detect something.

    python benchmarks/family_weights.py [--configs mmdet::a/b.py ...] [--shape H W]

Nothing is fetched and nothing is learned: weights are drawn (seeded) and fitted layer by layer to
images of the embedded digits, and the last layers are set so that the stock head's own decoding
gives boxes. So any detector can go through the whole chain, and its integers be decoded and
compared, without a checkpoint of it. Prints one line per config, each in a process of its own.
"""
import argparse
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.utils import get_installed_path
from torch import nn

import mmdet_bpu.registration  # noqa: F401  (lets mmdet be imported beside mmcv-lite)
from family_box_layers import fit_boxes
from family_boxes import HeadRun, count_boxes
from family_configs import CONFIGS, SMALL_SHAPE
from family_head_cache import remembered_products
from family_images import batch_of, digit_images
from family_layers import FittedLayers, spread_norms_and_attention
from family_outputs import last_layers
from family_scores import fit_scores
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.registry import MODELS

IMAGES = 2
# What a head has to give, see count_boxes.
ENOUGH = dict(before=50, classes=5, after=10)
TIME_LIMIT = 1800  # s, of one config


def read_config(config: str) -> Config:
    """``package::folder/name.py``, also of folders that mmengine refuses by name."""
    package, found, path = config.partition('::')
    if not found:
        return Config.fromfile(config)
    return Config.fromfile(str(Path(get_installed_path(package)) / '.mim' / 'configs' / path))


def build_stock(config: str) -> nn.Module:
    """Build the detector of a config without anything that its weights would be fetched for.

    Args:
        config (str): ``mmdet::folder/name.py``, or a file.

    Returns:
        nn.Module: In eval mode, its weights as the constructors leave them.
    """
    settings = read_config(config)
    init_default_scope(settings.get('default_scope') or 'mmdet')
    without_checkpoints(settings.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # constructors draw what no init_weights sets
        return MODELS.build(settings.model).eval()


def without_checkpoints(node: object) -> None:
    """Drop every ``init_cfg`` and ``pretrained`` that names a checkpoint, at any depth."""
    if isinstance(node, dict):
        if 'checkpoint' in str(node.get('init_cfg')):
            node['init_cfg'] = None
        if isinstance(node.get('pretrained'), str):
            node['pretrained'] = None
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            without_checkpoints(child)


def give_meaning(model: nn.Module, images: Sequence[np.ndarray], seed: int = 0) -> None:
    """Give a stock detector weights under which it detects something in these images.

    Everything is in its parameters and buffers: ``state_dict()`` holds it, and the same model,
    images and seed give the same. torch's random state is left as it was.

    Args:
        model (nn.Module): From :func:`build_stock`; has a ``bbox_head``.
        images (Sequence[np.ndarray]): Each (H, W, 3) uint8 BGR, all of one size.
        seed (int): Of the weights. Defaults to 0.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        initialize_quietly(model)
        spread_norms_and_attention(model)
        model.eval()
        batch = batch_of(model, images)
        with FittedLayers(model):
            run = HeadRun(model, batch)
            run.outputs()
        layers = last_layers(run)
        with remembered_products(run.head, layers.all()):
            fit_scores(run, layers)
            changed = fit_boxes(run, layers)
        if changed and isinstance(model, DetectionTransformer):
            run = HeadRun(model, batch)  # decoders that refine boxes use the head's layers
        if changed:  # offsets of later layers too
            with remembered_products(run.head, layers.all()):
                fit_scores(run, layers)


def initialize_quietly(model: nn.Module) -> None:
    """mmdet's own initialization, without its page of text per layer."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        model.init_weights()
    finally:
        logger.setLevel(level)


def describe(config: str, shape: tuple[int, int]) -> str:
    """Build, weigh and count one config: a line for the table."""
    start = time.process_time()
    model = build_stock(config)
    images = digit_images(IMAGES, shape)
    give_meaning(model, images)
    found = count_boxes(model, images)
    short = [f'{name} {found[name]} < {least}' for name, least in ENOUGH.items()
             if found[name] < least]
    counts = '  '.join(f'{name} {count:5d}' for name, count in found.items())
    return (f'{counts}  {time.process_time() - start:6.1f} CPU s  '
            + (f'too few: {", ".join(short)}' if short else 'enough'))


def describe_apart(config: str, shape: tuple[int, int]) -> str:
    """:func:`describe` in a process of its own, which may fail or take too long."""
    command = [sys.executable, __file__, '--one', config, '--shape', *map(str, shape)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return f'not done after {TIME_LIMIT} s'
    lines = (done.stdout if not done.returncode else done.stderr).strip().splitlines()
    return lines[-1] if lines else f'ended with {done.returncode}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--configs', nargs='+', metavar='CONFIG', default=list(CONFIGS),
                        help=f'mmdet::folder/name.py (default: {len(CONFIGS)} of them)')
    parser.add_argument('--shape', nargs=2, type=int, metavar=('H', 'W'),
                        help='input of the network, px (default: the small one of each config)')
    parser.add_argument('--one', metavar='CONFIG', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        warnings.simplefilter('ignore')
        print(describe(args.one, tuple(args.shape)))
        return
    width = max(map(len, args.configs))
    for config in args.configs:
        shape = tuple(args.shape or CONFIGS.get(config, SMALL_SHAPE))
        print(f'{config:{width}}  {shape[0]}x{shape[1]}  {describe_apart(config, shape)}',
              flush=True)


if __name__ == '__main__':
    main()
