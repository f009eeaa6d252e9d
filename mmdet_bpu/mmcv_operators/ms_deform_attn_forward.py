"""Multi-scale deformable attention, which mmcv's module asks of its extension on CUDA."""
from torch import Tensor

from mmdet_bpu.mmcv_operators.level_sampling import weighted_samples


def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor,
                           value_level_start_index: Tensor, sampling_locations: Tensor,
                           attention_weights: Tensor, im2col_step: int) -> Tensor:
    """Samples of every level, weighted and summed, as mmcv's module computes them on a CPU.

    Args:
        value (Tensor): (N, positions, heads, channels).
        value_spatial_shapes (Tensor): (levels, 2) as (height, width).
        value_level_start_index (Tensor): Not used: levels follow each other.
        sampling_locations (Tensor): (N, queries, heads, levels, points, 2) as (x, y) in [0, 1].
        attention_weights (Tensor): (N, queries, heads, levels, points).
        im2col_step (int): Not used; how many images the compiled operator takes at a time.

    Returns:
        Tensor: (N, queries, heads * channels).
    """
    return weighted_samples(value, value_spatial_shapes.tolist(), sampling_locations,
                            attention_weights)
