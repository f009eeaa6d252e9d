"""Products with another form written as ``matmul``: einsum, fused additions, attention."""
import math
from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def _letters(equation: str, operands: Tuple[Tensor, ...]) -> Optional[List[str]]:
    """Letters of two operands and of the result; None where ``equation`` is none of our business."""
    equation = equation.replace(' ', '')
    inputs, _, output = equation.partition('->')
    terms = inputs.split(',')
    if '->' not in equation or '.' in equation or len(terms) != 2 or len(operands) != 2:
        return None
    if any(len(set(term)) != len(term) for term in (*terms, output)):
        return None  # a diagonal
    return [*terms, output]


def open_einsum(equation: str, *operands: Tensor) -> Tensor:
    """A sum of products of two tensors as one batched ``matmul`` between two permutes."""
    letters = _letters(equation, operands)
    if letters is None:
        return NotImplemented
    left, right, output = letters
    sizes = {letter: size for term, x in zip((left, right), operands)
             for letter, size in zip(term, x.shape)}
    batch = [c for c in left if c in right and c in output]
    summed = [c for c in left if c in right and c not in output]
    rows, columns = ([c for c in term if c in output and c not in other]
                     for term, other in ((left, right), (right, left)))
    if set(left) | set(right) != {*batch, *summed, *rows, *columns}:
        return NotImplemented  # a letter that one operand alone sums over

    def arranged(x: Tensor, term: str, *parts: List[str]) -> Tensor:
        x = x.permute([term.index(c) for part in parts for c in part])
        return x.reshape([math.prod(sizes[c] for c in part) for part in parts])

    product = torch.matmul(arranged(operands[0], left, batch, rows, summed),
                           arranged(operands[1], right, batch, summed, columns))
    found = [*batch, *rows, *columns]
    return product.reshape([sizes[c] for c in found]).permute([found.index(c) for c in output])


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor


def open_addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1,
               alpha: float = 1) -> Tensor:
    """``beta * input + alpha * (mat1 @ mat2)``; ``addmm`` and ``baddbmm``."""
    return _scaled(input, beta) + _scaled(torch.matmul(mat1, mat2), alpha)


def open_scaled_dot_product_attention(query: Tensor,
                                      key: Tensor,
                                      value: Tensor,
                                      attn_mask: Optional[Tensor] = None,
                                      dropout_p: float = 0.0,
                                      is_causal: bool = False,
                                      scale: Optional[float] = None,
                                      enable_gqa: bool = False) -> Tensor:
    """``softmax(query * scale @ key^T + mask) @ value``."""
    if enable_gqa or is_causal:
        return NotImplemented
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = torch.matmul(_scaled(query, scale), key.transpose(-2, -1))
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float('-inf')) \
            if attn_mask.dtype == torch.bool else scores + attn_mask
    weights = F.softmax(scores, dim=-1)
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    return torch.matmul(weights, value)
