"""Passes from fake-quantized HBIR to the integer dialect, one per file."""
from typing import List, Optional, Sequence, Tuple

from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.hbir.passes.agree_types import agree_types
from mmdet_bpu.hbir.passes.bound_accumulators import bound_accumulators
from mmdet_bpu.hbir.passes.check_decisions import check_decisions
from mmdet_bpu.hbir.passes.collect_scales import collect_scales
from mmdet_bpu.hbir.passes.conversion import Conversion, Decision
from mmdet_bpu.hbir.passes.drop_unused import drop_unused
from mmdet_bpu.hbir.passes.emit_module import emit_module
from mmdet_bpu.hbir.passes.find_tables import find_tables
from mmdet_bpu.hbir.passes.fuse_epilogues import fuse_epilogues
from mmdet_bpu.hbir.passes.insert_camera import insert_camera
from mmdet_bpu.hbir.passes.merge_movement import merge_movement
from mmdet_bpu.hbir.passes.pipeline import Pass, check_order, run_pipeline

__all__ = ['PIPELINE', 'Pass', 'check_order', 'conversion_of', 'convert', 'run_pipeline']


PIPELINE = (
    Pass('collect_scales', collect_scales),
    Pass('fuse_epilogues', fuse_epilogues, ('collect_scales', )),
    Pass('find_tables', find_tables, ('collect_scales', 'fuse_epilogues')),
    Pass('agree_types', agree_types, ('fuse_epilogues', 'find_tables')),
    Pass('bound_accumulators', bound_accumulators, ('fuse_epilogues', )),
    Pass('check_decisions', check_decisions, ('find_tables', 'bound_accumulators')),
    Pass('emit', emit_module, ('find_tables', 'agree_types', 'bound_accumulators')),
    Pass('merge_movement', merge_movement, ('emit', )),
    Pass('drop_unused', drop_unused, ('merge_movement', )),
    Pass('insert_camera', insert_camera, ('emit', )),
)


def convert(module: ModuleOp, metadata: Optional[dict] = None) -> Tuple[ModuleOp, List[dict]]:
    """Integer form of a fake-quantized module.

    Args:
        module (ModuleOp): ``hbir`` and ``qnt`` operations; it is not changed.
        metadata (dict, optional): Kept in the integer module and its artefacts.

    Returns:
        tuple[ModuleOp, list[dict]]: The integer module, and notes on what the passes did (tables
        and their error, enlarged weight scales, widened operands), each with its site.

    Raises:
        BpuError: A value that no fake quantizer rounds, or an operation without an integer form;
            the message names its site.
    """
    conversion = conversion_of(module, metadata)
    return conversion.result, conversion.notes


def conversion_of(module: ModuleOp, metadata: Optional[dict] = None,
                  decisions: Sequence[Decision] = ()) -> Conversion:
    """As :func:`convert`, with what the passes know: which value became which.

    Args:
        module (ModuleOp), metadata (dict, optional): See :func:`convert`.
        decisions (Sequence[Decision]): What the module was written from: the passes must find the
            same. Defaults to none, as for a module that was read from a file.
    """
    return run_pipeline(module, PIPELINE, metadata, decisions)
