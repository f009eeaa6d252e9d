"""Outputs of the network as real numbers in the head's nesting, and the check of their shapes."""
from typing import Any, Dict, List, Sequence

import numpy as np

from mmdet_bpu.errors import BpuError


def output_tree(outputs: Dict[str, np.ndarray], contract: Dict[str, Any]) -> List[Any]:
    """Outputs as real numbers, float32, nested as the head returns them.

    Args:
        outputs (dict): Name to integers.
        contract (dict): ``outputs`` has a ``scale`` for each name; ``output_tree`` is nested lists
            of names; version 0.1 had none, and scores and boxes of queries.

    Raises:
        BpuError: An output is missing, or is no array of finite numbers.
    """
    if not isinstance(outputs, dict):
        raise BpuError(f'outputs of the network: expected a dict, found {type(outputs).__name__}')
    scales = {entry['name']: entry.get('scale') for entry in contract['outputs']}

    def real(name):
        if isinstance(name, list):
            return [real(part) for part in name]
        if not isinstance(name, str) or name not in scales or name not in outputs:
            raise BpuError(f'outputs of the network: expected {name!r}, found '
                           f'{", ".join(sorted(map(str, outputs)))}')
        levels = outputs[name]
        if not isinstance(levels, np.ndarray) or levels.dtype.kind not in 'iuf' \
                or not np.isfinite(levels).all():
            raise BpuError(f'output {name!r} of the network: expected an array of finite numbers, '
                           f'found {getattr(levels, "dtype", type(levels).__name__)}')
        levels = np.atleast_1d(levels.astype(np.float32))
        return levels if scales[name] is None else levels * np.float32(scales[name])

    return real(contract.get('output_tree') or ['cls_scores', 'bbox_preds'])


def check_levels(tree: List[Any], levels: int, parts: Sequence[int]) -> None:
    """Check that a head has as many outputs as it should, and each of them a map for each level.

    Raises:
        BpuError: It is not so.
    """
    found = [len(part) if isinstance(part, list) else 'no list' for part in tree]
    if len(tree) not in parts or any(length != levels for length in found):
        raise BpuError(f'outputs of the network: expected {" or ".join(map(str, parts))} lists of '
                       f'{levels} maps, found lists of {found}')


def check_maps(maps: List[np.ndarray], channels: List[int]) -> None:
    """Check that maps are (1, channels, H, W), all of the same H and W.

    Raises:
        BpuError: They are not.
    """
    shapes = [level.shape if isinstance(level, np.ndarray) else () for level in maps]
    expected = [(1, count, *shapes[0][2:]) for count in channels]
    if shapes != expected or len(shapes[0]) != 4:
        raise BpuError(f'outputs of the network: expected maps of {channels} channels, all of one '
                       f'height and width, found {shapes}')
