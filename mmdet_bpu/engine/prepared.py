"""A stock detector brought to the quantized form that a checkpoint holds."""
from typing import Any, Dict

from torch import nn

from mmdet_bpu.engine.loading import load_strictly
from mmdet_bpu.graph.saved_graph import SavedGraph
from mmdet_bpu.quantization import prepare
from mmdet_bpu.quantization.prepare import fold_saved

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
    weights = checkpoint['state_dict']
    if saved is not None:
        fold_saved(model, saved)
        load_strictly(model, {name: tensor for name, tensor in weights.items()
                              if not name.removeprefix('module.').startswith(OURS)}, path)
    model = prepare(model, settings, saved)
    load_strictly(model, weights, path)
    return model
