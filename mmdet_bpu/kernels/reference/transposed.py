"""conv_transpose2d: carried and finished as a convolution is."""
from dataclasses import replace

import torch
import torch.nn.functional as F

from mmdet_bpu.kernels.reference import kernel
from mmdet_bpu.kernels.reference.carriers import check_carriers, exact_float_products
from mmdet_bpu.kernels.reference.products import ProductPlan, carried_parts, plan_convolution
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.program.weight_layout import channels_exchanged

Tensors = list[torch.Tensor]


def plan_conv_transpose2d(operands: list[Operand], attrs: dict) -> ProductPlan:
    """Choose the carrier as for a convolution.

    A result takes only some of the window's pixels where the stride is above 1, so the bound of
    all of them holds.
    """
    plan = plan_convolution(operands, attrs, 'bpu.conv_transpose2d')
    weights = [channels_exchanged(part, attrs['groups']).contiguous() for part in plan.weights]
    return replace(plan, weights=weights)


@kernel('bpu.conv_transpose2d', plan_conv_transpose2d, probe=check_carriers, constants=(1, 2))
def conv_transpose2d(inputs: Tensors, attrs: dict, plan: ProductPlan) -> Tensors:
    """bpu.conv_transpose2d: (N, H, W, C) x (O, KH, KW, C/groups) + (O) -> (N, OH, OW, O).

    The whole result is computed and cut; a negative padding adds rows or columns behind.
    """
    top, left, bottom, right = attrs['pad']
    behind = (max(-bottom, 0), max(-right, 0))
    products, factors = [], []
    with exact_float_products():
        for part, weight, factor in carried_parts(inputs[0], plan):
            whole = F.conv_transpose2d(part, weight, plan.bias, tuple(attrs['stride']), 0, behind,
                                       attrs['groups'], tuple(attrs['dilation']))
            rows, columns = whole.shape[2] - max(bottom, 0), whole.shape[3] - max(right, 0)
            products.append(whole[:, :, top:rows, left:columns].permute(0, 2, 3, 1))
            factors.append(factor)
    return [plan.epilogue(products, factors, inputs[3] if len(inputs) > 3 else None)]
