"""Multi-scale deformable attention with static shapes and one ``grid_sample`` per level."""
from typing import Optional

import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttention
from torch import Tensor, nn

from mmdet_bpu.mmcv_operators.level_sampling import weighted_samples


class StaticDeformableAttention(MultiScaleDeformableAttention):
    """mmcv's deformable attention, the same graph on CPU and GPU.

    mmcv's own module calls a compiled CUDA op that no tracer sees, and branches on tensors. This
    one has the same parameters and state dict, reads the level shapes as Python integers and
    samples with ``F.grid_sample``. Float results equal mmcv's CPU path bit for bit.
    """

    def forward(self,
                query: Tensor,
                key: Optional[Tensor] = None,
                value: Optional[Tensor] = None,
                identity: Optional[Tensor] = None,
                query_pos: Optional[Tensor] = None,
                key_padding_mask: Optional[Tensor] = None,
                reference_points: Optional[Tensor] = None,
                spatial_shapes: Optional[Tensor] = None,
                level_start_index: Optional[Tensor] = None,
                **kwargs) -> Tensor:
        """Sample ``value`` around ``reference_points`` and mix the samples.

        Args:
            query (Tensor): ``(Q, N, E)``, or ``(N, Q, E)`` with ``batch_first``.
            key (Tensor, optional): Not used; kept for the interface.
            value (Tensor, optional): ``(V, N, E)`` likewise; ``query`` if absent.
            identity (Tensor, optional): Added to the output; ``query`` if absent.
            query_pos (Tensor, optional): Added to ``query``.
            key_padding_mask (Tensor, optional): bool ``(N, V)``; True is ignored.
            reference_points (Tensor): ``(N, Q, levels, 2 or 4)``, normalized to [0, 1].
            spatial_shapes (Tensor): ``(levels, 2)`` as (height, width).
            level_start_index (Tensor, optional): Not used.

        Returns:
            Tensor: Shaped as ``query``.
        """
        value = query if value is None else value
        identity = query if identity is None else identity
        if query_pos is not None:
            query = query + query_pos
        if not self.batch_first:
            query, value = query.permute(1, 0, 2), value.permute(1, 0, 2)
        batch, queries, _ = query.shape
        count = value.shape[1]
        shapes = [(int(h), int(w)) for h, w in spatial_shapes.tolist()]
        if sum(h * w for h, w in shapes) != count:
            raise ValueError(f'value has {count} positions, but the levels {shapes} have '
                             f'{sum(h * w for h, w in shapes)}')
        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        value = value.view(batch, count, self.num_heads, -1)
        offsets = self.sampling_offsets(query).view(batch, queries, self.num_heads,
                                                    self.num_levels, self.num_points, 2)
        weights = self.attention_weights(query).view(batch, queries, self.num_heads,
                                                     self.num_levels * self.num_points)
        weights = weights.softmax(-1)
        locations = self._locations(reference_points, offsets, spatial_shapes)
        output = weighted_samples(value, shapes, locations, weights)
        output = self.output_proj(output)
        if not self.batch_first:
            output = output.permute(1, 0, 2)
        return self.dropout(output) + identity

    def _locations(self, reference: Tensor, offsets: Tensor, spatial_shapes: Tensor) -> Tensor:
        """Sampling locations ``(N, Q, heads, levels, points, 2)`` in [0, 1] as (x, y)."""
        if reference.shape[-1] == 2:
            size = torch.stack([spatial_shapes[..., 1], spatial_shapes[..., 0]], -1)
            return reference[:, :, None, :, None, :] \
                + offsets / size[None, None, None, :, None, :]
        if reference.shape[-1] == 4:
            return reference[:, :, None, :, None, :2] \
                + offsets / self.num_points * reference[:, :, None, :, None, 2:] * 0.5
        raise ValueError('reference_points must end in 2 or 4 coordinates, '
                         f'found shape {tuple(reference.shape)}')


def open_deformable_attention(model: nn.Module) -> int:
    """Turn every mmcv deformable attention of ``model`` into :class:`StaticDeformableAttention`.

    Returns:
        int: How many modules were changed.
    """
    changed = 0
    for module in model.modules():
        if type(module) is MultiScaleDeformableAttention:
            module.__class__ = StaticDeformableAttention
            changed += 1
    return changed
