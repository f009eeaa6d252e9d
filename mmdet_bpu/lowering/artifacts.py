"""What a detector becomes on disk: HBIR, integer module, report, ``.hbm``."""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.collector import paused_collector
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.hbir.builder import metadata_of
from mmdet_bpu.hbir.camera_stage import SITE, insert_vendor_stage, stage_of, vendor_refusal
from mmdet_bpu.hbir.text import write_text
from mmdet_bpu.lowering.artifact_formats import FORMATS, writable_format
from mmdet_bpu.lowering.export import lower_networks
from mmdet_bpu.output_folder import atomic_file, write_atomically

HBIR_FILE, REPORT_FILE, CONTRACT_FILE = 'model.hbir.mlir', 'model.quant.json', 'model.deploy.json'
INT_FILE, HBM_FILE = FORMATS['int'].file, FORMATS['hbm'].file


@dataclass
class IntegerModel:
    """A detector in fake-quantized and integer form.

    Attributes:
        networks (list[QuantizedGraph]): What both were made from.
        hbir (ModuleOp): Fake-quantized HBIR, from the normalised image on.
        integer (ModuleOp): The same in the integer dialect, with metadata, and before the image
            what they ask for.
        report (list[dict]): One row per tensor: site, op, shape, dtype, scale, rule.
        notes (list[dict]): What the passes did: tables, enlarged scales, widened operands.
    """
    networks: List[QuantizedGraph]
    hbir: ModuleOp
    integer: ModuleOp
    report: List[dict]
    notes: List[dict]


@paused_collector()
def to_integers(networks: Sequence[QuantizedGraph],
                metadata: Optional[dict] = None) -> IntegerModel:
    """HBIR and integer form of the networks of a calibrated detector."""
    lowered = lower_networks(networks)
    conversion = lowered.convert(metadata)
    return IntegerModel(list(networks), lowered.module, conversion.result,
                        [row for n in networks for row in n.rows], conversion.notes)


@paused_collector()
def write_export(exported: IntegerModel, out_dir: Union[str, Path],
                 formats: Sequence[str] = ('int', )) -> Dict[str, Path]:
    """Write ``model.hbir.mlir``, ``model.quant.json`` and the files of some formats.

    Args:
        exported (IntegerModel): What is written.
        out_dir (str | Path): Folder; made if it is not there.
        formats (Sequence[str]): Stages of formats. Defaults to the integer module.

    Returns:
        dict[str, Path]: File name -> path. Without ``model.hbir.mlir`` where HBIR has no form for
        the conversion of a camera's planes; a note in ``model.quant.json`` then says so.

    Raises:
        BpuError: There is no such format, or it is not made by an export.
    """
    folder = Path(out_dir)
    rows = [writable_format(stage) for stage in formats]
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in (HBIR_FILE, REPORT_FILE, *(row.file for row in rows))}
    notes = list(exported.notes)
    stage = stage_of(metadata_of(exported.integer))
    refusal = None if stage is None else vendor_refusal(stage)
    if refusal is None:
        module = exported.hbir if stage is None else insert_vendor_stage(exported.hbir, stage)
        with atomic_file(paths[HBIR_FILE]) as partial:
            write_text(module, partial)
    else:
        del paths[HBIR_FILE]
        notes.append(dict(site=SITE, rule='write_export',
                          text=f'no {HBIR_FILE} is written: {refusal}'))
    for row in rows:
        with atomic_file(paths[row.file]) as partial:
            row.write(exported, partial)
    content = dict(tensors=exported.report, notes=notes)
    write_atomically(paths[REPORT_FILE], (json.dumps(content, indent=1) + '\n').encode())
    return paths
