"""Gradient of the focal loss, which mmcv's function asks of its extension."""
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_bpu.mmcv_operators.sigmoid_focal_loss_forward import class_weighted, target_classes


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor,
                                gamma: float, alpha: float) -> None:
    """Fill ``grad_input`` with the derivative of each loss by its x.

    With p = sigmoid(x): ``-alpha * (1 - p)**gamma * (1 - p - gamma * p * log(p))`` for the target's
    class and ``-(1 - alpha) * p**gamma * (gamma * (1 - p) * log(1 - p) - p)`` for each other.

    Args:
        grad_input (Tensor): (N, C), written.

    The others are those of the forward.
    """
    here, logits = target_classes(input, target), input.float()
    positive, negative = torch.sigmoid(logits), torch.sigmoid(-logits)
    wanted = -alpha * negative**gamma * (
        negative - gamma * positive * F.logsigmoid(logits))
    unwanted = (alpha - 1) * positive**gamma * (
        gamma * negative * F.logsigmoid(-logits) - positive)
    grad_input.copy_(class_weighted(torch.where(here, wanted, unwanted), target, weight))
