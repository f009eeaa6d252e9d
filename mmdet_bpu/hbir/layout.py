"""Lazy layouts: a tensor's stored order of dimensions, changed only when an op needs it.

A stored order lists logical dimensions as they lie in memory: a feature map of logical
``(N, C, H, W)`` stored channels last has the order ``(0, 2, 3, 1)``.
"""
from typing import List, Optional, Sequence, Tuple

Order = Tuple[int, ...]
Shape = Tuple[int, ...]

CHANNELS_LAST: Order = (0, 2, 3, 1)


def identity(rank: int) -> Order:
    """Stored as the logical shape says."""
    return tuple(range(rank))


def stored_shape(shape: Sequence[int], order: Order) -> Shape:
    """Shape in memory of a logical ``shape``."""
    return tuple(shape[dim] for dim in order)


def transposition(old: Order, new: Order) -> List[int]:
    """``dims`` of the transpose that brings a tensor stored as ``old`` into ``new``."""
    return [old.index(dim) for dim in new]


def permuted(order: Order, dims: Sequence[int]) -> Order:
    """Order after a logical permute, which moves nothing: output dim i is input dim dims[i]."""
    return tuple(list(dims).index(dim) for dim in order)


def _factor_groups(old: Shape, new: Shape) -> List[Tuple[List[int], List[int]]]:
    """Smallest runs of dimensions of both shapes with equal products, in order."""
    groups: List[Tuple[List[int], List[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [], []
        p = q = 1
        if i < len(old):
            left.append(i)
            p = old[i]
            i += 1
        if j < len(new):
            right.append(j)
            q = new[j]
            j += 1
        while p != q:
            if p < q:
                left.append(i)
                p *= old[i]
                i += 1
            else:
                right.append(j)
                q *= new[j]
                j += 1
        groups.append((left, right))
    return groups


def reshaped(old: Shape, new: Shape, order: Order) -> Optional[Order]:
    """Order of a reshape that moves nothing in memory, or None if there is none.

    Dimensions that merge must lie next to each other in memory, in their logical order.
    """
    owner = {}
    groups = _factor_groups(old, new)
    for number, (left, _) in enumerate(groups):
        for dim in left:
            owner[dim] = number
    sequence = [dim for dim in order if old[dim] != 1]
    result: List[int] = []
    emitted = set()
    position = 0
    while position < len(sequence):
        number = owner[sequence[position]]
        wanted = [dim for dim in groups[number][0] if old[dim] != 1]
        if sequence[position:position + len(wanted)] != wanted:
            return None
        position += len(wanted)
        result += groups[number][1]
        emitted.add(number)
    # Groups of ones take no room: each goes after the group before it.
    for number, (_, right) in enumerate(groups):
        if number in emitted:
            continue
        before = [d for _, r in groups[:number] for d in r]
        spot = result.index(before[-1]) + 1 if before and before[-1] in result else 0
        result[spot:spot] = right
    return tuple(result)


def with_new_dim(order: Order, dim: int) -> Order:
    """Order after inserting a logical dimension of size 1 before ``dim``.

    In memory it goes right before the dimension that it pushes back, or to the end.
    """
    shifted = [d + 1 if d >= dim else d for d in order]
    spot = shifted.index(dim + 1) if dim + 1 in shifted else len(shifted)
    return tuple(shifted[:spot] + [dim] + shifted[spot:])
