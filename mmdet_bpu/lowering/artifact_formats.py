"""The artefacts that can be run: per format its stage, its suffix, and what loads it.

A format is a row here and a module with its loader, which is imported when a file of it is opened:
the names alone cost nothing.
"""
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Union

from mmdet_bpu.errors import BpuError

if TYPE_CHECKING:
    from mmdet_bpu.executors.protocol import Executable


@dataclass(frozen=True)
class ArtifactFormat:
    """One kind of file.

    Attributes:
        stage (str): The stage under which it is evaluated.
        suffix (str): How its name ends.
        file (str): What a deployment calls it.
        loader (str): ``module:function``, which takes a path and gives an
            :class:`~mmdet_bpu.executors.protocol.Executable`.
    """
    stage: str
    suffix: str
    file: str
    loader: str

    def load(self, path: Path) -> 'Executable':
        """Import the loader and open a file with it."""
        module, _, function = self.loader.partition(':')
        return getattr(importlib.import_module(module), function)(path)


FORMATS: Dict[str, ArtifactFormat] = {row.stage: row for row in (
    ArtifactFormat('int', '.mlir', 'model.int.mlir', 'mmdet_bpu.lowering.integer_text:load'),
    ArtifactFormat('hbm', '.hbm', 'model.hbm', 'mmdet_bpu.executors.simulator:HbmSimulator'),
)}
"""Stage -> format."""


def format_of(path: Union[str, Path]) -> ArtifactFormat:
    """The format of a file, by its name.

    Raises:
        BpuError: No format has this suffix.
    """
    for row in FORMATS.values():
        if Path(path).name.endswith(row.suffix):
            return row
    raise BpuError(f'{path}: expected '
                   + ' or '.join(f'a {row.file}' for row in FORMATS.values()))


def load_artifact(path: Union[str, Path]) -> 'Executable':
    """Executable of an artefact: ``run({name: integers})``.

    Raises:
        BpuError: No such file, none of the formats, or damaged.
    """
    row = format_of(path)
    if not Path(path).is_file():
        raise BpuError(f'artefact {path} not found')
    return row.load(Path(path))
