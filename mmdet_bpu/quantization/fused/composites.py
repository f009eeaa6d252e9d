"""Which written-out functions can run at once, and in training without the quantizers inside."""
from typing import Any, Callable, Dict

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_bpu.mmcv_operators.level_sampling import weighted_samples
from mmdet_bpu.quantization.fused.group_norm import fused_group_norm
from mmdet_bpu.quantization.fused.layer_norm import fused_layer_norm
from mmdet_bpu.quantization.fused.sampling import fused_samples
from mmdet_bpu.quantization.fused.sampling_counted import counted_samples
from mmdet_bpu.quantization.fused.softmax import fused_softmax

FUSED: Dict[Callable, Callable[..., Any]] = {
    **dict.fromkeys((torch.softmax, F.softmax, Tensor.softmax), fused_softmax),
    F.layer_norm: fused_layer_norm,
    F.group_norm: fused_group_norm,
    weighted_samples: fused_samples,
}
"""Opened function -> the same with its quantizers, ``(sites, quantizers, *args, **kwargs)``.

What it returns for a call that it cannot run, or that has something else to do than to round, is
``NotImplemented``: the call is written out then, as in export.
"""

COUNTED: Dict[Callable, Callable[..., Any]] = {weighted_samples: counted_samples}
"""The same for calibration: opened function -> it and what its observers count."""
