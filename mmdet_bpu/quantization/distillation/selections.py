"""Positions that a two-stage detector selects as it runs, and which of them two runs share.

Rows of its decoder are the positions with the best scores, in their order. Another score swaps two
rows, so the rows of two runs are compared position by position and not in their order. The student
goes on with its own selection, which is what is deployed; scores that would select otherwise are
compared at every position.
"""
from dataclasses import dataclass, field
from typing import Any, Callable, List, Tuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

TOPK = (torch.topk, Tensor.topk)
GATHER = (torch.gather, Tensor.gather)


@dataclass
class Selection:
    """One top-k and what was gathered by it.

    Attributes:
        scores (Tensor): (N, positions); logits.
        rows (Tensor): Positions that were selected, (N, K).
        gathered (list[Tensor]): What was read at them, each (N, K, C).
    """
    scores: Tensor
    rows: Tensor
    gathered: List[Tensor] = field(default_factory=list)


class Selections(TorchFunctionMode):
    """Notes the selections of what runs inside.

    Args:
        on_path (Callable): Whether what runs now is on the tensor path.

    Attributes:
        found (list[Selection]): In their order.
    """

    def __init__(self, on_path: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self.on_path, self.found = on_path, []

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in TOPK and self.on_path() and result.indices.dim() == 2:
            self.found.append(Selection(args[0], result.indices))
        elif func in GATHER and self.found and self.on_path() and result.dim() == 3 \
                and result.shape[:2] == self.found[-1].rows.shape:
            self.found[-1].gathered.append(result)
        return result


def shared_rows(rows: Tensor, others: Tensor) -> Tuple[Tensor, Tensor]:
    """Which rows of one selection are in another, and where.

    Args:
        rows (Tensor): (N, K) positions.
        others (Tensor): (N, K) positions.

    Returns:
        tuple: bool (N, K), whether a row is shared; int64 (N, K), its place among ``others``, 0 where it
        is not.
    """
    same = rows.unsqueeze(2) == others.unsqueeze(1)
    return same.any(2), same.to(torch.uint8).argmax(2)


def at(x: Tensor, places: Tensor) -> Tensor:
    """Rows (N, K) of ``x`` (N, rows, C)."""
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
