"""Where a stage's weights come from, and how they are read and loaded.

Layout: the last component of a run's folder ends with its stage (``work_dirs/digits_qat``, or
``work_dirs/qat``). The stage before is looked for beside it, under the same name with the other
stage's ending (``work_dirs/digits_calibration``).
"""
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
from mmdet_bpu.engine.stage_names import FLOAT, SOURCE_STAGES
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


def load_strictly(model: nn.Module, state_dict: Dict[str, torch.Tensor], path: str) -> None:
    """Load weights; every key has to be there, be known and have the model's shape.

    Args:
        model (nn.Module): The model, not wrapped.
        state_dict (dict): Name -> tensor. A leading ``module.`` (of a wrapper) is dropped.
        path (str): The file, for the message.

    Raises:
        BpuError: Missing or unexpected keys, or other shapes; all are named.
    """
    weights = {re.sub(r'^module\.', '', key): value for key, value in state_dict.items()}
    own = model.state_dict()
    complaints: List[str] = []
    _complain(complaints, 'missing', [key for key in own if key not in weights])
    _complain(complaints, 'unexpected', [key for key in weights if key not in own])
    _complain(complaints, 'of another shape', [
        f'{key} (model {tuple(own[key].shape)}, file {tuple(weights[key].shape)})' for key in own
        if key in weights and own[key].shape != weights[key].shape])
    if complaints:
        raise BpuError(f'checkpoint {path} does not fit {type(model).__name__}:\n'
                       + '\n'.join(complaints)
                       + '\nexpected a checkpoint of the same config; check backbone, number of '
                       'classes and queries, and the stage')
    model.load_state_dict(weights, strict=True)


def newest_checkpoint(folder: Path) -> Optional[Path]:
    """Newest checkpoint of a run: what ``last_checkpoint`` names, else the youngest ``*.pth``."""
    pointer = folder / 'last_checkpoint'
    if pointer.is_file():
        named = Path(pointer.read_text(encoding='utf-8').strip())
        for candidate in (named, folder / named.name):  # the folder may have been moved
            if candidate.is_file():
                return candidate
    found = sorted(folder.glob('*.pth'), key=lambda file: (file.stat().st_mtime_ns, file.name))
    return found[-1] if found else None


def sibling_folder(work_dir: str, stage: str, other: str) -> Optional[Path]:
    """Folder of another stage beside ``work_dir``; None if that does not end with its stage."""
    folder = Path(work_dir)
    if not folder.name.endswith(stage):
        return None
    return folder.with_name(folder.name[:len(folder.name) - len(stage)] + other)


def find_source(stage: str, work_dir: str, load_from: Optional[str]) -> Optional[str]:
    """Checkpoint that a run beyond float starts from.

    Args:
        stage (str): Stage of the run.
        work_dir (str): Its folder.
        load_from (str, optional): The config's ``load_from``; wins if given.

    Returns:
        str | None: Path, or None for a float run that starts from nothing.

    Raises:
        BpuError: Beyond float, nothing was given and nothing was found; the message says what to
            give and where was looked.
    """
    if load_from is not None or stage == FLOAT:
        return load_from
    looked = []
    for source in SOURCE_STAGES[stage]:
        folder = sibling_folder(work_dir, stage, source)
        if folder is None or source == stage:
            continue
        found = newest_checkpoint(folder)
        if found is not None:
            return str(found)
        looked.append(str(folder))
    expected = ' or '.join(repr(name) for name in SOURCE_STAGES[stage])
    where = f'none found in {", ".join(looked)}' if looked else \
        f'work_dir {work_dir} does not end with {stage!r}, so no sibling folder was searched'
    raise BpuError(f'stage {stage!r} needs a checkpoint to start from: load_from is not set, and '
                   f'{where}. Give one of stage {expected} (a stock mmdet checkpoint counts as '
                   "'float') by parameter load_from=FILE, or as load_from in the config")


def _complain(complaints: List[str], what: str, keys: List[str]) -> None:
    if keys:
        more = f', and {len(keys) - SHOWN_KEYS} more' if len(keys) > SHOWN_KEYS else ''
        complaints.append(f'  {len(keys)} {what}: {", ".join(keys[:SHOWN_KEYS])}{more}')


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
