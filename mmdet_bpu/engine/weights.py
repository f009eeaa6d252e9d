"""How checkpoints are read, and of which stage they are."""
from pathlib import Path
from typing import Any, Dict, Tuple

import torch

from mmdet_bpu.engine.checkpoint_scan import scan_checkpoint
from mmdet_bpu.engine.download import downloaded, forget, is_address
from mmdet_bpu.engine.foreign_checkpoint import read_foreign_checkpoint
from mmdet_bpu.engine.plain_data import from_plain
from mmdet_bpu.engine.stage_names import FLOAT
from mmdet_bpu.errors import BpuError


def read_checkpoint(path: str, map_location: Any = 'cpu') -> Dict[str, Any]:
    """Read a checkpoint safely, whoever wrote it.

    Ours hold plain data and come back whole. From a stock or foreign one, tensors and plain
    metadata are kept; nothing that it names is executed.

    Args:
        path (str): A local file, or an ``http(s)://`` address, kept in torch's download folder.
        map_location (Any): As for ``torch.load``. Defaults to ``'cpu'``.

    Returns:
        dict: At least ``state_dict`` and ``meta``.

    Raises:
        BpuError: No such file, it cannot be downloaded, or it holds no weights.
    """
    if is_address(path):
        file = str(downloaded(path))
        try:
            return _read_file(file, map_location)
        except BpuError as error:
            forget(path)  # a page in its place, say
            raise BpuError(f'what {path} gave is no checkpoint, and was not kept: {error}') from error
    if '://' in str(path):
        raise BpuError(f'checkpoint {path}: expected a local file or an http(s) address')
    return _read_file(str(Path(path).expanduser()), map_location)


def _read_file(path: str, map_location: Any) -> Dict[str, Any]:
    if not Path(path).is_file():
        found = 'is a folder' if Path(path).is_dir() else 'not found'
        raise BpuError(f'checkpoint {path} {found}; expected a .pth file')
    plain = scan_checkpoint(path)
    checkpoint = _read_plain(path, map_location) if plain else None
    if checkpoint is None:
        checkpoint = read_foreign_checkpoint(path)
    if not isinstance(checkpoint, dict):
        raise BpuError(f'checkpoint {path} holds a {type(checkpoint).__name__}; expected a dict '
                       'with state_dict')
    if 'state_dict' not in checkpoint:  # a bare dict of weights, as torchvision writes them
        checkpoint = dict(state_dict=checkpoint)
    checkpoint.setdefault('meta', {})
    for name in ('state_dict', 'meta'):
        if not isinstance(checkpoint[name], dict):
            raise BpuError(f'checkpoint {path} holds a {type(checkpoint[name]).__name__} under '
                           f'{name}; expected a dict')
    return checkpoint


def _read_plain(path: str, map_location: Any) -> Any:
    """What ``torch.load`` reads without looking up names; None if it does not."""
    try:
        return from_plain(torch.load(path, map_location=map_location, weights_only=True))
    except BpuError as error:
        raise BpuError(f'checkpoint {path}: {error}') from None
    except Exception:  # whatever bytes make of it: the other reader says what is wrong
        return None


def stage_of(checkpoint: Dict[str, Any]) -> str:
    """Stage that wrote a checkpoint; one that does not say (a stock one) is a float one."""
    meta = checkpoint.get('meta') or {}
    return meta.get('bpu_stage', FLOAT)


def check_stage(checkpoint: Dict[str, Any], expected: Tuple[str, ...], path: str,
                purpose: str) -> None:
    """Raise BpuError unless ``checkpoint`` was written by one of the ``expected`` stages."""
    found = stage_of(checkpoint)
    if found not in expected:
        raise BpuError(f'checkpoint {path} is of stage {found!r}; expected '
                       f'{" or ".join(map(repr, expected))} to {purpose}')
