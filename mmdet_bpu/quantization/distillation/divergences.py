"""How far a student's tensor is from its teacher's: one number without a unit, 0 where they agree.

Positions count by how sure the teacher is that an object is there, as losses with labels count
positives: most positions of a detector are background, whose boxes mean nothing.
"""
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-6  # of a divisor: a teacher's tensor may be all the same
SIDES = 4  # of a box


def by_position(x: Tensor, values: int) -> Tensor:
    """A head's output with the ``values`` of one position last.

    ``(N, A * values, H, W)``, as dense heads have it, becomes ``(N, A, H, W, values)``; what has them
    last already, ``(N, queries, values)``, stays.
    """
    if x.dim() != 4:
        return x
    return x.unflatten(1, (-1, values)).movedim(2, -1)


def confidence(scores: Tensor, softmax: bool) -> Tensor:
    """How sure a teacher is of an object at each position: its best class.

    Args:
        scores (Tensor): Logits, classes last.
        softmax (bool): The last class is the background. Else each class is a sigmoid of its own.
    """
    if softmax:
        return 1 - scores.softmax(-1)[..., -1]
    return scores.sigmoid().amax(-1)


def bernoulli(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Kullback-Leibler divergence of sigmoids, over the mass of all that the teacher takes for objects.

    Args:
        student (Tensor): Logits, classes last.
        teacher (Tensor): Likewise.
        weight (Tensor): Of each position, 0 for those that are not compared.
    """
    target = teacher.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(teacher, target, reduction='none')
    crossed = F.binary_cross_entropy_with_logits(student, target, reduction='none')
    mass = (target.amax(-1) * weight).sum().clamp(min=1)
    return ((crossed - entropy) * weight.unsqueeze(-1)).sum() / mass


def categorical(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """The same of softmaxes, whose last class is the background."""
    divergence = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction='none',
                          log_target=True).sum(-1)
    mass = (confidence(teacher, softmax=True) * weight).sum().clamp(min=1)
    return (divergence * weight).sum() / mass


def boxes(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """L1 distance of boxes, in spreads of the teacher's, added up over the sides.

    Args:
        student (Tensor): What describes a box last, in any coding.
        teacher (Tensor): Likewise.
        weight (Tensor): Of each position.
    """
    weight = weight.unsqueeze(-1)
    total = weight.expand_as(teacher).sum().clamp(min=SMALLEST)
    mean = (teacher * weight).sum() / total
    spread = (((teacher - mean).abs() * weight).sum() / total).clamp(min=SMALLEST)
    return SIDES * ((student - teacher).abs() * weight).sum() / total / spread


def values(student: Tensor, teacher: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    """Squared error over the teacher's variance: noise over signal."""
    finite = torch.isfinite(teacher)
    if weight is not None:
        finite = finite & (weight > 0).expand_as(teacher)
    error = torch.where(finite, student - teacher, 0).square().sum()
    signal = torch.where(finite, teacher - teacher[finite].mean(), 0).square().sum()
    return error / signal.clamp(min=SMALLEST)
