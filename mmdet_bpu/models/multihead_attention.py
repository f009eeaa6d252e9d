"""Multi-head attention whose inner products are separate calls that a tracer sees."""
import math
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OpenMultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` written out as linear, matmul, softmax, matmul, linear.

    Same parameters, same state dict, same arguments. An existing module is turned into this one
    by :func:`open_multihead_attention`. The order of the operations is that of
    ``F.multi_head_attention_forward`` with ``need_weights=True``, so float results are equal
    bit for bit.
    """

    def forward(self,
                query: Tensor,
                key: Tensor,
                value: Tensor,
                key_padding_mask: Optional[Tensor] = None,
                need_weights: bool = True,
                attn_mask: Optional[Tensor] = None,
                average_attn_weights: bool = True,
                is_causal: bool = False) -> Tuple[Tensor, Optional[Tensor]]:
        """Attend.

        Args:
            query (Tensor): ``(L, N, E)``, or ``(N, L, E)`` with ``batch_first``.
            key (Tensor): ``(S, N, E)`` likewise.
            value (Tensor): ``(S, N, E)`` likewise.
            key_padding_mask (Tensor, optional): bool or float ``(N, S)``; True is ignored.
            need_weights (bool): Also return the attention weights averaged over the heads.
            attn_mask (Tensor, optional): bool or float ``(L, S)`` or ``(N * heads, L, S)``.
            average_attn_weights (bool): Average the returned weights over the heads.
            is_causal (bool): A hint of torch's; the mask alone decides here.

        Returns:
            tuple[Tensor, Tensor | None]: Output shaped as ``query``, and the weights.
        """
        if self.batch_first:
            query, key, value = (x.transpose(1, 0) for x in (query, key, value))
        length, batch, embed = query.shape
        source = key.shape[0]
        q, k, v = self._project(query, key, value)
        heads, width = self.num_heads, self.head_dim
        q = q.view(length, batch * heads, width).transpose(0, 1)
        k = k.view(source, batch * heads, width).transpose(0, 1)
        v = v.view(source, batch * heads, width).transpose(0, 1)
        q = q * math.sqrt(1.0 / float(width))
        scores = torch.bmm(q, k.transpose(-2, -1))
        bias = self._mask(attn_mask, key_padding_mask, batch, source, scores.dtype)
        if bias is not None:
            scores = scores + bias
        weights = F.softmax(scores, dim=-1)
        if self.dropout > 0.0:
            weights = F.dropout(weights, p=self.dropout, training=self.training)
        output = torch.bmm(weights, v)
        output = output.transpose(0, 1).contiguous().view(length * batch, embed)
        output = F.linear(output, self.out_proj.weight, self.out_proj.bias)
        output = output.view(length, batch, embed)
        if self.batch_first:
            output = output.transpose(1, 0)
        if not need_weights:
            return output, None
        weights = weights.view(batch, heads, length, source)
        return output, weights.mean(dim=1) if average_attn_weights else weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> Tuple[Tensor, ...]:
        """The three input projections, each ``(length, N, E)``."""
        if self._qkv_same_embed_dim:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None, ) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return tuple(
            F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases))

    def _mask(self, attn_mask: Optional[Tensor], key_padding_mask: Optional[Tensor], batch: int,
              source: int, dtype: torch.dtype) -> Optional[Tensor]:
        """Both masks as one additive float mask that broadcasts to ``(N * heads, L, S)``."""

        def additive(mask: Tensor) -> Tensor:
            if mask.dtype != torch.bool:
                return mask.to(dtype)
            return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float('-inf'))

        bias = None if attn_mask is None else additive(attn_mask)
        if key_padding_mask is not None:
            padding = additive(key_padding_mask).view(batch, 1, 1, source)
            padding = padding.expand(-1, self.num_heads, -1, -1)
            padding = padding.reshape(batch * self.num_heads, 1, source)
            bias = padding if bias is None else bias + padding
        return bias


def open_multihead_attention(model: nn.Module) -> int:
    """Turn every ``nn.MultiheadAttention`` of ``model`` into :class:`OpenMultiheadAttention`.

    Attention with ``bias_kv``, ``zero_attn`` or a subclass of its own is left as it is: capture
    then names it as an op that cannot be lowered.

    Returns:
        int: How many modules were changed.
    """
    changed = 0
    for module in model.modules():
        if type(module) is nn.MultiheadAttention and module.bias_k is None \
                and not module.add_zero_attn:
            module.__class__ = OpenMultiheadAttention
            changed += 1
    return changed
