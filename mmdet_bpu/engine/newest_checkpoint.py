"""The newest checkpoint of a run: newest is the newest that opens.

A killed process, a full disk or a copy that was cut short leaves files that do not open; they are
passed over with a warning, and the one before counts.
"""
import logging
from pathlib import Path
from typing import Any, Dict, List, Optional

from mmengine.logging import print_log

from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError

POINTER = 'last_checkpoint'
"""File in which a run names the checkpoint that it saved last."""


def newest_checkpoint(folder: Path, resumable: bool = False) -> Optional[Path]:
    """Newest checkpoint in a run's folder that opens.

    It is the one that ``last_checkpoint`` names, unless a younger file has trained further (the run
    was killed before it named that one). If the named one does not open, it is the youngest
    ``*.pth`` that does.

    Args:
        folder (Path): The run's folder; need not exist.
        resumable (bool): Only those that training can go on with count: with the optimizer's state,
            which the best ones and published ones lack. Defaults to False.

    Returns:
        Path | None: None if there is none.
    """
    named = _named(folder)
    standing = None if named is None else _opened(named, resumable)
    for file in _youngest_first(folder):
        if standing is not None and _age(file) <= _age(named):
            break
        opened = None if file == named else _opened(file, resumable)
        if opened is not None and (standing is None or _iterations(opened) > _iterations(standing)):
            return file
    return None if standing is None else named


def _named(folder: Path) -> Optional[Path]:
    """The file that ``last_checkpoint`` names, if it is there; the folder may have been moved."""
    try:
        text = (folder / POINTER).read_text(encoding='utf-8', errors='replace').strip()
    except OSError:
        return None
    candidates = (folder / Path(text).name, Path(text)) if text else ()
    return next((path for path in candidates if path.is_file()), None)


def _opened(path: Path, resumable: bool) -> Optional[Dict[str, Any]]:
    """The checkpoint's metadata; None if it does not open or cannot be used."""
    try:
        checkpoint = read_checkpoint(str(path))
    except BpuError as error:
        print_log(f'passed over: {error}', level=logging.WARNING)
        return None
    if resumable and not {'optimizer', 'message_hub'} <= set(checkpoint):
        return None
    return checkpoint['meta']


def _iterations(meta: Dict[str, Any]) -> int:
    found = meta.get('iter')
    return found if isinstance(found, int) else 0


def _youngest_first(folder: Path) -> List[Path]:
    files = [path for path in folder.glob('*.pth') if path.is_file()]
    return sorted(files, key=lambda path: (_age(path), path.name), reverse=True)


def _age(path: Path) -> int:
    """Time of the last change, ns; a file that goes meanwhile is the oldest."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
