"""Random weights through which a signal passes: every layer is fitted to what reaches it.

Layer-sequential unit variance (Mishkin and Matas, "All you need is a good init", 2015), with the
mean of every channel taken out as well (Kraehenbuehl et al., "Data-dependent initializations of
convolutional neural networks", 2015): in the order in which one batch passes, every convolution
and linear layer is scaled so that its product has variance 1, and every batch norm takes the
statistics of its input. So a detector of any depth, with norms or without, has features that vary
over positions, and sampling offsets, gates and attention logits of the size of a trained one's.
"""
import re

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

PRODUCTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
# Of a norm's scale and shift: neither 1 and 0, with which folding them would be untested, nor 0,
# to which residual branches are initialized and with which they would be dead.
NORM_SCALE = (0.5, 1.5)
NORM_SHIFT = 0.2  # standard deviation
# Standard deviation of queries and keys over that of their input. Its square is that of the
# attention logits: with 1 a query sees the mean of hundreds of keys, and soon all queries are
# the same.
QUERY_GAIN = 2.0
QUERY_OR_KEY = re.compile(r'\.[qk][^.]*_proj$')  # attention that projects by layers of its own
ATTENTION = 0.5  # standard deviation of what attention adds to its queries
LEAST_SPREAD = 1e-4  # standard deviations below belong to a constant, which is left as it is


def spread_norms_and_attention(model: nn.Module) -> None:
    """Draw what :class:`FittedLayers` does not see: norms, and attention in one piece.

    ``nn.MultiheadAttention`` reads its weights without calling a layer.
    """
    for module in model.modules():
        if isinstance(module, NORMS) and module.weight is not None:
            nn.init.uniform_(module.weight, *NORM_SCALE)
            nn.init.normal_(module.bias, std=NORM_SHIFT)
        if isinstance(module, nn.MultiheadAttention):
            nn.init.normal_(module.in_proj_weight, std=QUERY_GAIN * module.embed_dim ** -0.5)
            nn.init.normal_(module.out_proj.weight, std=module.embed_dim ** -0.5)


class FittedLayers:
    """Context in which the first call of every product and batch norm fits it to its input.

    Args:
        model (nn.Module): In eval mode. Layers that share a weight are fitted once.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.fitted, self.handles = model, set(), []
        self.sharp = {id(module) for name, module in model.named_modules()
                      if QUERY_OR_KEY.search(name)}

    def __enter__(self) -> 'FittedLayers':
        for module in self.model.modules():
            if isinstance(module, PRODUCTS):
                self.handles += [module.register_forward_pre_hook(self.revive),
                                 module.register_forward_hook(self.fit_product)]
            elif isinstance(module, nn.MultiheadAttention):
                self.handles.append(module.register_forward_hook(self.fit_attention))
            elif isinstance(module, _BatchNorm):
                self.handles.append(module.register_forward_pre_hook(self.fit_norm))
        return self

    def __exit__(self, *raised: object) -> None:
        for handle in self.handles:
            handle.remove()

    def first_call(self, key: object) -> bool:
        """Whether this weight or norm has not been fitted, noting that it is now."""
        first = id(key) not in self.fitted
        self.fitted.add(id(key))
        return first

    def revive(self, layer: nn.Module, args: tuple) -> None:
        """Give a layer that is initialized to a constant (offsets, last box layers) weights."""
        if id(layer.weight) not in self.fitted and layer.weight.std(correction=0) == 0:
            nn.init.normal_(layer.weight)

    def fit_product(self, layer: nn.Module, args: tuple, result: Tensor,
                    wanted: float = 1.0) -> Tensor:
        """Scale the weight, and take the mean of every channel out of the bias."""
        if not self.first_call(layer.weight):
            return result
        axis = -1 if isinstance(layer, nn.Linear) else 1
        channels = result.movedim(axis, -1)
        bias = 0 if layer.bias is None else layer.bias.clone()
        product = channels - bias
        mean = product.flatten(0, -2).mean(0)
        spread = (product - mean).std(correction=0)
        if spread < LEAST_SPREAD:
            return result
        spread /= QUERY_GAIN if id(layer) in self.sharp else wanted
        layer.weight.data /= spread
        if layer.bias is None:
            return (product / spread).movedim(-1, axis)
        layer.bias.data -= mean / spread
        return ((product - mean) / spread + bias).movedim(-1, axis)

    def fit_attention(self, attention: nn.MultiheadAttention, args: tuple,
                      results: tuple) -> tuple:
        """The same for the projection inside, which is not called as a layer."""
        result, weights = results
        return self.fit_product(attention.out_proj, args, result, ATTENTION), weights

    def fit_norm(self, norm: _BatchNorm, args: tuple) -> None:
        """Take the statistics of the input, as an epoch of training would."""
        if norm.running_mean is None or not self.first_call(norm):
            return
        channels = args[0].movedim(1, -1).flatten(0, -2)
        norm.running_mean.copy_(channels.mean(0))
        norm.running_var.copy_(channels.var(0, correction=0).clamp(min=LEAST_SPREAD))
