"""Moments of what the products of a calibrated detector read, without and with rounding."""
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.quantization.fake_quant import FakeQuantizer
from mmdet_bpu.quantization.quantized_detector import Quantization
from mmdet_bpu.quantization.statistics import reduced

KINDS = ('conv2d', 'linear')
POSITIONS = 1024  # of an image, in a call


@dataclass
class Moments:
    """Of the columns that a weight is multiplied with, over images and positions.

    Attributes:
        count (float): Columns that were seen.
        real (Tensor): Sum of the columns, float64 (groups, columns' length).
        rounded (Tensor): The same of the columns on the grid of the input's integers.
        products (Tensor, optional): Sum of products of each two elements of a rounded column, float32
            (groups, length, length).
    """
    count: float
    real: Tensor
    rounded: Tensor
    products: Optional[Tensor] = None

    @torch.no_grad()
    def reduce(self) -> None:
        """Combine those of all ranks."""
        count = torch.tensor([self.count], dtype=torch.float64, device=self.real.device)
        for total in (count, self.real, self.rounded, self.products):
            if total is not None:
                reduced(total, dist.ReduceOp.SUM)
        self.count = count.item()


class Product(NamedTuple):
    """A product whose weight and bias are parameters.

    Attributes:
        op (Op): Its operation.
        weight (str), bias (str): Names of its parameters; no bias is ''.
        quantizer (FakeQuantizer), factor (float): Of its input.
    """
    op: Op
    weight: str
    bias: str
    quantizer: FakeQuantizer
    factor: float


def products_of(network: QuantizedGraph, quant: Quantization) -> Iterator[Product]:
    """Products of a network in its order whose weight is a parameter as it is."""
    graph, placement = network.graph, network.placement
    for op in graph.ops:
        if op.kind not in KINDS or graph.values[op.inputs[0]].is_constant:
            continue
        weight, *bias = (graph.values[name].origin for name in op.inputs[1:])
        if weight and all(bias):
            name = network.name(placement.integers(op.inputs[0]))
            yield Product(op, weight, ''.join(bias), quant.quantizer(name),
                          placement.scale_factor(op.inputs[0]))


class ProductInputs:
    """Takes the moments of the inputs of all products while a detector runs in float.

    Args:
        quant (Quantization): Of the detector, with its scales.
        second (bool): Whether products of elements are summed too. Defaults to False.

    Attributes:
        moments (dict[str, Moments]): By the name of the weight.
    """

    def __init__(self, quant: Quantization, second: bool = False) -> None:
        self.second = second
        self.moments: Dict[str, Moments] = {}
        self.of_call: Dict[tuple, List[Product]] = defaultdict(list)
        for network in quant.networks:
            for product in products_of(network, quant):
                self.of_call[product.op.call].append(product)
        self._generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def __call__(self, key: tuple, func: Callable, args: tuple) -> None:
        """A call is about to be made."""
        if not self.of_call.get(key) or func not in (F.conv2d, F.linear):
            return
        product = self.of_call[key][0]
        x, weight = args[0].float(), args[1]
        rounded = product.quantizer.on_grid(x, factor=product.factor)
        columns = _columns(torch.stack((x, rounded)), product.op, weight.shape)
        chosen = torch.randperm(columns.shape[-1], generator=self._generator)
        columns = columns[..., chosen[:POSITIONS * len(x)].to(x.device)]
        real, rounded = columns
        groups, length, count = real.shape
        if product.weight not in self.moments:
            zeros = real.new_zeros(groups, length, dtype=torch.float64)
            self.moments[product.weight] = Moments(0.0, zeros, zeros.clone(), real.new_zeros(
                groups, length, length) if self.second else None)
        moments = self.moments[product.weight]
        moments.count += count
        moments.real += real.sum(-1, dtype=torch.float64)
        moments.rounded += rounded.sum(-1, dtype=torch.float64)
        if self.second:
            moments.products.baddbmm_(rounded, rounded.transpose(1, 2))

    def reduce(self) -> None:
        """Combine what all ranks saw."""
        for _, moments in sorted(self.moments.items()):
            moments.reduce()

    @contextmanager
    def watching(self, quant: Quantization) -> Iterator[None]:
        """What the detector runs inside is float, and seen."""
        state = quant.state
        quant.set_state('off')
        quant.products = self
        try:
            yield
        finally:
            quant.products = None
            quant.set_state(state)


def _columns(pair: Tensor, op: Op, weight: Tuple[int, ...]) -> Tensor:
    """What each row of a weight meets, (2, groups, elements of a row, positions of all images)."""
    if op.kind == 'linear':
        return pair.reshape(2, 1, -1, weight[1]).transpose(-1, -2)
    groups = op.params.get('groups', 1)
    images = pair.shape[1]
    unfolded = F.unfold(pair.flatten(0, 1), tuple(weight[2:]), stride=tuple(op.params['stride']),
                        padding=tuple(op.params['padding'][:2]), dilation=tuple(op.params['dilation']))
    columns = unfolded.view(2, images, groups, -1, unfolded.shape[-1])
    return columns.permute(0, 2, 3, 1, 4).flatten(3)
