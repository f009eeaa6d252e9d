"""A stock detector brought to the quantized form that a checkpoint holds."""
from typing import Any, Dict, Tuple

from torch import Tensor, nn

from mmdet_bpu.engine.live_checkpoints import folded_state
from mmdet_bpu.engine.loading import load_strictly
from mmdet_bpu.engine.stage_names import CALIBRATION
from mmdet_bpu.engine.weights import stage_of
from mmdet_bpu.graph.saved_graph import SavedGraph
from mmdet_bpu.quantization import (finish_calibration, prepare, quantization_of, saved_norms,
                                    saved_statistics)
from mmdet_bpu.quantization.fold import require_pairs
from mmdet_bpu.quantization.learned_reach import reach_state
from mmdet_bpu.quantization.norm_states import FOLDED, norm_state, norms_live
from mmdet_bpu.quantization.prepare import KeptNorms, fold_saved
from mmdet_bpu.quantization.repairs import repair
from mmdet_bpu.quantization.saved_statistics import SavedStatistics

OURS = 'quant.'


def prepare_from(model: nn.Module, settings: Dict[str, Any], checkpoint: Dict[str, Any],
                 path: str) -> nn.Module:
    """Prepare a stock detector for the weights and scales of a calibration or QAT checkpoint.

    The checkpoint says which batch norms were folded, so its weights are in place when the
    detector is captured. One of version 0.1 does not: the detector is prepared first. Batch norms that
    QAT had live are folded; those of a calibration can be live where ``bpu.qat.batch_norm`` says so.

    Args:
        model (nn.Module): As built from the config.
        settings (dict): The validated ``bpu`` settings.
        checkpoint (dict): See :func:`mmdet_bpu.engine.weights.read_checkpoint`.
        path (str): The file, for messages.

    Raises:
        BpuError: The checkpoint's keys, structure, rules or input stage are not the config's, or it
            does not hold the norms that QAT is to go on with.
    """
    saved, state = SavedGraph.of(checkpoint, path), checkpoint['state_dict']
    begins = norms_live(settings) and stage_of(checkpoint) == CALIBRATION
    if norms_live(settings) and not begins:
        settings = dict(settings, qat=dict(settings['qat'], batch_norm=FOLDED))
    kept = None
    if saved is not None:
        state, kept = load_folded(model, saved, checkpoint, path)
    if begins:
        saved_norms.give(kept.norms if kept else {}, checkpoint, path)
    model = prepare(model, settings, saved, kept=kept if begins else None)
    load_strictly(model, {**norm_state(model), **reach_state(model), **state}, path)
    return model


def prepare_again(model: nn.Module, settings: Dict[str, Any], checkpoint: Dict[str, Any],
                  path: str) -> nn.Module:
    """Prepare a stock detector as an interrupted run had it; the run's weights are yet to be loaded.

    Args:
        model (nn.Module), settings (dict), checkpoint (dict), path (str): See :func:`prepare_from`; the
            checkpoint is of the stage of ``settings``.

    Raises:
        BpuError: The checkpoint's structure, rules or input stage are not the config's.
    """
    calibrated, kept = stage_of(checkpoint) == CALIBRATION, None
    saved = SavedGraph.of(checkpoint, path)
    if saved is not None:
        kept = fold_saved(model, saved)
        if calibrated and saved_norms.KEY in checkpoint:
            saved_norms.give(kept.norms, checkpoint, path)
        elif not norms_live(settings):
            kept = None  # the detector's own are not those of the run
    model = prepare(model, settings, saved, kept=kept)
    quant = quantization_of(model)
    if calibrated and kept is None:
        quant.norms = {}
    if calibrated and saved_statistics.KEY in checkpoint:
        quant.statistics = SavedStatistics.of(checkpoint, path).plain['tensors']
    return model


def calibrate_again(model: nn.Module, settings: Dict[str, Any], checkpoint: Dict[str, Any],
                    path: str, calibration: Dict[str, Any], calibration_path: str) -> nn.Module:
    """Prepare a stock detector and give it scales from what a calibration saw, without an image.

    Args:
        model (nn.Module): As built from the config.
        settings (dict): The validated ``bpu`` settings: their observer, rules and dtypes.
        checkpoint (dict): Holds the weights, float ones or those of the calibration.
        path (str): Its file, for messages.
        calibration (dict): The calibration's checkpoint.
        calibration_path (str): Its file, for messages.

    Raises:
        BpuError: The calibration kept no statistics, or they are those of another model: other
            weights, another structure or input stage, a tensor that it did not see.
    """
    statistics = SavedStatistics.of(calibration, calibration_path)
    saved = SavedGraph.of(calibration, calibration_path)
    is_float = SavedGraph.of(checkpoint, path) is None
    kept = None
    if is_float:
        load_strictly(model, checkpoint['state_dict'], path)
    else:
        _, kept = load_folded(model, saved, checkpoint, path)
        if saved_norms.KEY in checkpoint:
            saved_norms.give(kept.norms, checkpoint, path)
        else:
            kept = None
    model = prepare(model, settings, saved, decide_again=True, kept=kept)
    if is_float:
        repair(model, quantization_of(model))
    statistics.give(model)
    finish_calibration(model)
    return model


def load_folded(model: nn.Module, saved: SavedGraph, checkpoint: Dict[str, Any],
                path: str) -> Tuple[Dict[str, Tensor], KeptNorms]:
    """Fold a stock detector as the checkpoint was and load its weights, but nothing that quantization adds.

    Returns:
        tuple: All weights of the checkpoint, its live norms folded, and the detector's own norms.

    Raises:
        BpuError: They do not fit.
    """
    require_pairs(model, saved.folded, path)
    state = folded_state(model, checkpoint['state_dict'], saved.folded, path)
    kept = fold_saved(model, saved)
    load_strictly(model, {name: tensor for name, tensor in state.items()
                          if not name.startswith(OURS)}, path)
    return state, kept
