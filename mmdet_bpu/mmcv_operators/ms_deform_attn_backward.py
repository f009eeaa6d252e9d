"""Gradients of deformable attention, which mmcv's function asks of its extension."""
import torch
from torch import Tensor

from mmdet_bpu.mmcv_operators.ms_deform_attn_forward import ms_deform_attn_forward


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor,
                            value_level_start_index: Tensor, sampling_locations: Tensor,
                            attention_weights: Tensor, grad_output: Tensor, grad_value: Tensor,
                            grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int) -> None:
    """Fill the three gradients in place: the forward is computed again and differentiated.

    Args:
        grad_output (Tensor): Of the output, (N, queries, heads * channels).
        grad_value (Tensor): Written; shaped as ``value``.
        grad_sampling_loc (Tensor): Written; shaped as ``sampling_locations``.
        grad_attn_weight (Tensor): Written; shaped as ``attention_weights``.

    The others are those of the forward.
    """
    inputs = [each.detach().requires_grad_()
              for each in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = ms_deform_attn_forward(inputs[0], value_spatial_shapes, value_level_start_index,
                                        inputs[1], inputs[2], im2col_step)
        gradients = torch.autograd.grad(output, inputs, grad_output)
    for written, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients):
        written.copy_(gradient)
