"""Focal loss (Lin et al., 2017), which mmdet asks of mmcv's extension on CUDA."""
import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor,
                               gamma: float, alpha: float) -> None:
    """Fill ``output`` with the loss of every class of every prediction.

    With p = sigmoid(x), the loss is ``-alpha * (1 - p)**gamma * log(p)`` for the class that is the
    target and ``-(1 - alpha) * p**gamma * log(1 - p)`` for each other.

    Args:
        input (Tensor): (N, C), x.
        target (Tensor): (N, ), int64, the class; C is background.
        weight (Tensor): (C, ), of the target's class, or empty.
        output (Tensor): (N, C), written.
        gamma (float): How much less what is found easily counts.
        alpha (float): Share of the target's own class.
    """
    here, logits = target_classes(input, target), input.float()
    wanted = torch.sigmoid(-logits).pow_(gamma).mul_(F.logsigmoid(logits)).mul_(-alpha)
    unwanted = torch.sigmoid(logits).pow_(gamma).mul_(F.logsigmoid(-logits)).mul_(alpha - 1)
    output.copy_(class_weighted(torch.where(here, wanted, unwanted), target, weight))


def target_classes(input: Tensor, target: Tensor) -> Tensor:
    """Bool (N, C): whether a class is the target."""
    return target[:, None] == torch.arange(input.shape[1], device=input.device)


def class_weighted(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """``values`` (N, C) times the weight of each target's class; background counts 1."""
    if weight.numel() == 0:
        return values
    return values * F.pad(weight.float(), (0, 1), value=1.0)[target][:, None]
