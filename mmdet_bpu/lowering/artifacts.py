"""What a detector becomes on disk: HBIR, integer module, report, ``.hbm``; and reading them back."""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.text import read_text, write_text
from mmdet_bpu.lowering.export import export_networks
from mmdet_bpu.output_folder import atomic_file, write_atomically

HBIR_FILE, INT_FILE, REPORT_FILE, HBM_FILE = ('model.hbir.mlir', 'model.int.mlir',
                                              'model.quant.json', 'model.hbm')
CONTRACT_FILE = 'model.deploy.json'


@dataclass
class IntegerModel:
    """A detector in fake-quantized and integer form.

    Attributes:
        hbir (ModuleOp): Fake-quantized HBIR.
        integer (ModuleOp): The same in the integer dialect, with metadata.
        report (list[dict]): One row per tensor: site, op, shape, dtype, scale, rule.
        notes (list[dict]): What the passes did: tables, enlarged scales, widened operands.
    """
    hbir: ModuleOp
    integer: ModuleOp
    report: List[dict]
    notes: List[dict]


def to_integers(networks: Sequence[QuantizedGraph],
                metadata: Optional[dict] = None) -> IntegerModel:
    """HBIR and integer form of the networks of a calibrated detector."""
    hbir = export_networks(networks)
    integer, notes = convert(hbir, metadata)
    return IntegerModel(hbir, integer, [row for n in networks for row in n.rows], notes)


def write_export(exported: IntegerModel, out_dir: Union[str, Path]) -> Dict[str, Path]:
    """Write ``model.hbir.mlir``, ``model.int.mlir`` and ``model.quant.json``.

    Returns:
        dict[str, Path]: File name -> path.
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in (HBIR_FILE, INT_FILE, REPORT_FILE)}
    for path, module in ((paths[HBIR_FILE], exported.hbir), (paths[INT_FILE], exported.integer)):
        with atomic_file(path) as partial:
            write_text(module, partial)
    content = dict(tensors=exported.report, notes=exported.notes)
    write_atomically(paths[REPORT_FILE], (json.dumps(content, indent=1) + '\n').encode())
    return paths


def load_artifact(path: Union[str, Path]) -> Any:
    """Executable of a ``model.int.mlir`` or a ``model.hbm``: ``run({name: integers})``.

    Raises:
        BpuError: No such file, neither kind, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise BpuError(f'artefact {path} not found')
    if path.suffix == '.hbm':
        return HbmSimulator(path)
    if path.suffix == '.mlir':
        return Interpreter(program_from_module(read_text(path)))
    raise BpuError(f'{path}: expected a model.int.mlir or a model.hbm')
