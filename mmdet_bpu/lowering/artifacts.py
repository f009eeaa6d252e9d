"""What a detector becomes on disk: HBIR, integer module, report, ``.hbm``."""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.hbir.text import write_text
from mmdet_bpu.lowering.artifact_formats import FORMATS
from mmdet_bpu.lowering.export import lower_networks
from mmdet_bpu.output_folder import atomic_file, write_atomically

HBIR_FILE, REPORT_FILE, CONTRACT_FILE = 'model.hbir.mlir', 'model.quant.json', 'model.deploy.json'
INT_FILE, HBM_FILE = FORMATS['int'].file, FORMATS['hbm'].file


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
    lowered = lower_networks(networks)
    conversion = lowered.convert(metadata)
    return IntegerModel(lowered.module, conversion.result,
                        [row for n in networks for row in n.rows], conversion.notes)


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
