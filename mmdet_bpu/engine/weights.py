"""How checkpoints are read and loaded."""
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import urlparse

import torch
from mmengine.dist import is_main_process
from mmengine.dist.dist import barrier
from torch import nn

from mmdet_bpu.engine.foreign_checkpoint import read_foreign_checkpoint
from mmdet_bpu.engine.plain_data import from_plain
from mmdet_bpu.engine.stage_names import FLOAT
from mmdet_bpu.errors import BpuError

# Names in a message about keys; the rest is counted.
SHOWN_KEYS = 8


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
        BpuError: No such file, or it holds no weights.
    """
    path = _local_path(path)
    if not Path(path).is_file():
        raise BpuError(f'checkpoint {path} not found; expected a .pth file')
    try:
        checkpoint = from_plain(torch.load(path, map_location=map_location, weights_only=True))
    except (UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError,
            AttributeError):
        checkpoint = read_foreign_checkpoint(path)
    if not isinstance(checkpoint, dict):
        raise BpuError(f'checkpoint {path} holds a {type(checkpoint).__name__}; expected a dict '
                       'with state_dict')
    if 'state_dict' not in checkpoint:  # a bare dict of weights, as torchvision writes them
        checkpoint = dict(state_dict=checkpoint)
    checkpoint.setdefault('meta', {})
    return checkpoint


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


def _local_path(path: str) -> str:
    """Path of a local file; an address is downloaded once, by one process."""
    scheme = urlparse(str(path)).scheme
    if scheme in ('http', 'https'):
        folder = Path(torch.hub.get_dir()) / 'checkpoints'
        target = folder / Path(urlparse(path).path).name
        if is_main_process() and not target.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(path, str(target))
        barrier()
        return str(target)
    if '://' in str(path):
        raise BpuError(f'checkpoint {path}: expected a local file or an http(s) address')
    return str(Path(path).expanduser())
