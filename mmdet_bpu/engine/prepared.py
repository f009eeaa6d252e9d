"""A stock detector brought to the quantized form that a checkpoint holds."""
from typing import Any, Dict

from torch import nn

from mmdet_bpu.engine.loading import load_strictly
from mmdet_bpu.graph.saved_graph import SavedGraph
from mmdet_bpu.quantization import finish_calibration, prepare, quantization_of
from mmdet_bpu.quantization.prepare import fold_saved
from mmdet_bpu.quantization.repairs import repair
from mmdet_bpu.quantization.saved_statistics import SavedStatistics

OURS = 'quant.'


def prepare_from(model: nn.Module, settings: Dict[str, Any], checkpoint: Dict[str, Any],
                 path: str) -> nn.Module:
    """Prepare a stock detector for the weights and scales of a calibration or QAT checkpoint.

    The checkpoint says which batch norms were folded, so its weights are in place when the
    detector is captured. One of version 0.1 does not: the detector is prepared first.

    Args:
        model (nn.Module): As built from the config.
        settings (dict): The validated ``bpu`` settings.
        checkpoint (dict): See :func:`mmdet_bpu.engine.weights.read_checkpoint`.
        path (str): The file, for messages.

    Raises:
        BpuError: The checkpoint's keys, structure, rules or input stage are not the config's.
    """
    saved = SavedGraph.of(checkpoint, path)
    if saved is not None:
        load_folded(model, saved, checkpoint, path)
    model = prepare(model, settings, saved)
    load_strictly(model, checkpoint['state_dict'], path)
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
    if is_float:
        load_strictly(model, checkpoint['state_dict'], path)
    else:
        load_folded(model, saved, checkpoint, path)
    model = prepare(model, settings, saved, decide_again=True)
    if is_float:
        repair(model, quantization_of(model))
    statistics.give(model)
    finish_calibration(model)
    return model


def load_folded(model: nn.Module, saved: SavedGraph, checkpoint: Dict[str, Any],
                 path: str) -> None:
    """Fold a stock detector as the checkpoint was and load its weights, but nothing that quantization adds.

    Raises:
        BpuError: They do not fit.
    """
    fold_saved(model, saved)
    load_strictly(model, {name: tensor for name, tensor in checkpoint['state_dict'].items()
                          if not name.removeprefix('module.').startswith(OURS)}, path)
