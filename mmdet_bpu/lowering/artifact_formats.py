"""The artefacts that can be run: per format its stage, its suffix, what writes and what loads it.

A format is a row here and a module with its writer and its loader, which is imported when a file of
it is written or opened: the names alone cost nothing.
"""
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Union

from mmdet_bpu.choices import KERNELS
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
        writer (str): ``module:function``, which takes an
            :class:`~mmdet_bpu.lowering.artifacts.IntegerModel` and a path. Defaults to '': an
            export does not write it.
        computed (bool): The loader takes the name of a kernel set too. Defaults to False.
        converts (bool): It holds the conversion of a camera's planes; of others the host does it.
            Defaults to False.
    """
    stage: str
    suffix: str
    file: str
    loader: str
    writer: str = ''
    computed: bool = False
    converts: bool = False

    def load(self, path: Path, kernels: str) -> 'Executable':
        """Import the loader and open a file with it; a kernel set computes it, where one does."""
        load = _imported(self.loader)
        return load(path, kernels) if self.computed else load(path)

    def write(self, exported: Any, path: Path) -> None:
        """Import the writer and write a file with it."""
        _imported(self.writer)(exported, path)


def _imported(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(':')
    return getattr(importlib.import_module(module), function)


FORMATS: Dict[str, ArtifactFormat] = {row.stage: row for row in (
    ArtifactFormat('int', '.mlir', 'model.int.mlir', 'mmdet_bpu.lowering.integer_text:load',
                   'mmdet_bpu.lowering.integer_text:write', computed=True, converts=True),
    ArtifactFormat('hbm', '.hbm', 'model.hbm', 'mmdet_bpu.executors.simulator:HbmSimulator',
                   computed=True, converts=True),
    ArtifactFormat('onnx', '.onnx', 'model.onnx', 'mmdet_bpu.lowering.onnx_form.files:OnnxNetwork',
                   'mmdet_bpu.lowering.onnx_form.files:write'),
)}
"""Stage -> format."""


def exported_formats() -> List[str]:
    """Stages of the formats that an export can write."""
    return [row.stage for row in FORMATS.values() if row.writer]


def writable_format(stage: str) -> ArtifactFormat:
    """The format of a stage, if an export can write it.

    Raises:
        BpuError: It cannot.
    """
    if stage not in exported_formats():
        raise BpuError(f'parameter formats: expected of {", ".join(exported_formats())}, found '
                       f'{stage!r}')
    return FORMATS[stage]


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


def load_artifact(path: Union[str, Path], kernels: str = KERNELS[0]) -> 'Executable':
    """Executable of an artefact: ``run({name: integers})``.

    Args:
        path (str | Path): A file of one of the formats.
        kernels (str): Kernel set that computes it. Defaults to the fast one.

    Raises:
        BpuError: No such file, none of the formats, or damaged.
    """
    row = format_of(path)
    if not Path(path).is_file():
        raise BpuError(f'artefact {path} not found')
    return row.load(Path(path), kernels)
