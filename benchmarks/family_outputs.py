"""The last layers of a head: found from its outputs, fitted over its levels, set by two numbers.

Nothing is known per head. A head's ``forward`` returns groups of tensors (class scores, boxes,
score factors, ...), each over levels or decoder layers. The layers that a group comes from are
found by walking its autograd graph back to the nearest weights of convolutions and linear layers,
through whatever element-wise functions lie between (``exp``, ``sigmoid``, scales, references).
"""
from typing import Iterator, NamedTuple

import torch
from family_boxes import HeadRun
from family_layers import LEAST_SPREAD, PRODUCTS
from torch import Tensor, nn

LEAST_SHARE = 0.1  # of the mean spread: a channel that varies less is not blown up to the others
HIGH = 0.98


class ScoreChannels(NamedTuple):
    """Which output channels of a layer are scores of what; (C,), bool unless said."""
    classes: Tensor
    background: Tensor  # of a softmax
    number: Tensor  # of the class, int


class LastLayer:
    """A layer whose every output channel has mean 0 and variance 1 over all calls in a head's run.

    The variance is the one inside an image: what tells images apart tells no boxes apart.
    ``high`` is the value of each channel that a share of ``1 - HIGH`` of the positions exceeds.

    Args:
        layer (nn.Module): Convolution or linear layer.
        calls (list[Tensor]): What it returned in one run of the head.
    """

    def __init__(self, layer: nn.Module, calls: list[Tensor]) -> None:
        self.layer = layer
        images = [by_position(call, layer) for call in calls]
        output = torch.cat([image.flatten(0, 1) for image in images])
        mean = output.mean(0)
        inside = [(image - image.mean(1, keepdim=True)).flatten(0, 1) for image in images
                  if image.shape[1] > 1]
        spread = (torch.cat(inside) if inside else output - mean).square().mean(0).sqrt()
        spread = spread.clamp(min=max(LEAST_SPREAD, LEAST_SHARE * float(spread.mean())))
        bias = layer.bias if layer.bias is not None else torch.zeros_like(mean)
        self.weight = (layer.weight / spread.reshape(-1, *axes_after(layer.weight))).clone()
        self.bias = (bias - mean) / spread
        self.high = ((output - mean) / spread).quantile(HIGH, dim=0)
        self.mean, self.spread = torch.zeros_like(mean), torch.ones_like(mean)

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return len(self.bias)

    def set(self, mean: Tensor | float | None = None, spread: Tensor | float | None = None) -> None:
        """Give the output channels these means and standard deviations, or keep what they have."""
        if mean is not None:
            self.mean = torch.zeros_like(self.bias) + mean
        if spread is not None:
            self.spread = torch.zeros_like(self.bias) + spread
        self.layer.weight.data = self.weight * self.spread.reshape(-1, *axes_after(self.weight))
        if self.layer.bias is not None:
            self.layer.bias.data = self.bias * self.spread + self.mean


class LastLayers(NamedTuple):
    """The last layers of a head, by what they give."""
    scores: list[tuple[LastLayer, ScoreChannels]]
    others: list[list[LastLayer]]  # of each other group of outputs

    def all(self) -> list[nn.Module]:
        """The modules themselves."""
        return [last.layer for last, _ in self.scores] + [
            last.layer for group in self.others for last in group]


def last_layers(run: HeadRun) -> LastLayers:
    """Find and fit the last layers of a head (all get mean 0 and variance 1)."""
    head = run.head
    layers = {id(layer.weight): layer for layer in head.modules() if isinstance(layer, PRODUCTS)}
    calls: dict[int, list[Tensor]] = {}
    handles = [layer.register_forward_hook(
        lambda layer, args, result: calls.setdefault(id(layer), []).append(result.detach()))
        for layer in layers.values()]
    frozen = [parameter for parameter in head.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            groups = [list(tensors_in(group)) for group in run.outputs()]
    finally:
        for handle in handles:
            handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(False)

    found = [layers_of(tensors, layers) for tensors in groups]
    made: dict[int, LastLayer] = {}
    for layer in (layer for group in found for layer in group):
        if id(layer) not in made:
            made[id(layer)] = LastLayer(layer, calls[id(layer)])
            made[id(layer)].set()
    scores, others, taken = [], [], set()
    for tensors, group in zip(groups, found):
        widths = {tensor.shape[run.channel_axis] for tensor in tensors}
        last = [made[id(layer)] for layer in group if id(layer) not in taken]
        channels = {layer.channels: score_channels(head, layer.channels) for layer in last
                    if layer.channels in widths}
        if not others and any(channels.values()):
            scores += [(layer, channels[layer.channels]) for layer in last
                       if channels.get(layer.channels)]
            last = [layer for layer in last if not channels.get(layer.channels)]
        elif last:
            others.append(last)
        taken |= {id(layer) for layer in group}
    assert scores, f'{type(head).__name__}: no layer of class scores found'
    return LastLayers(scores, others)


def by_position(output: Tensor, layer: nn.Module) -> Tensor:
    """A layer's output as (images, positions or queries, C)."""
    if isinstance(layer, nn.Linear):
        return output.reshape(-1, *output.shape[-2:])
    return output.flatten(2).transpose(1, 2)


def axes_after(weight: Tensor) -> tuple[int, ...]:
    """Sizes that let a factor per output channel be multiplied to a weight (C, ...)."""
    return (1,) * (weight.dim() - 1)


def tensors_in(tree: object) -> Iterator[Tensor]:
    """The tensors of nested lists and tuples, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for branch in tree:
            yield from tensors_in(branch)


def layers_of(tensors: list[Tensor], layers: dict[int, nn.Module]) -> list[nn.Module]:
    """The nearest of ``layers`` (by the id of their weight) that tensors were computed by."""
    found: dict[int, nn.Module] = {}
    waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop(0)
        before = [function for function, _ in node.next_functions if function is not None]
        # A linear layer takes its weight transposed.
        leaves = before + [leaf for function in before if function.name().startswith('TBackward')
                           for leaf, _ in function.next_functions]
        product = [id(leaf.variable) for leaf in leaves if hasattr(leaf, 'variable')
                   and id(leaf.variable) in layers]
        if product:
            found.update((key, layers[key]) for key in product)
            continue
        waiting += [function for function in before if function not in seen]
        seen.update(before)
    return list(found.values())


def score_channels(head: nn.Module, channels: int) -> ScoreChannels | None:
    """Which of a layer's channels are class scores, by the numbers that mmdet's heads share.

    Channels run over priors, within a prior over classes, the background of a softmax last; or over
    ``num_attrib`` of which the first five are a box and its objectness (YOLOv3).

    Returns:
        ScoreChannels | None: None if the number of channels does not fit.
    """
    if hasattr(head, 'num_attrib'):
        per_prior, first = head.num_attrib, head.num_attrib - head.num_classes
    else:
        per_prior, first = getattr(head, 'cls_out_channels', head.num_classes), 0
    priors = [1, *_as_list(getattr(getattr(head, 'prior_generator', None), 'num_base_priors', 1))]
    if channels not in {per_prior * count for count in priors}:
        return None
    place = torch.arange(channels) % per_prior
    return ScoreChannels(classes=(place >= first) & (place < first + head.num_classes),
                         background=place >= first + head.num_classes, number=place - first)


def _as_list(numbers: int | list[int]) -> list[int]:
    return list(numbers) if isinstance(numbers, (list, tuple)) else [numbers]
