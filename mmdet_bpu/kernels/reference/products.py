"""conv2d, linear and matmul: integer accumulators carried exactly, then one requantization."""
from dataclasses import dataclass, replace
from typing import Iterator, Union

import numpy as np
import torch
import torch.nn.functional as F

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.reference import kernel
from mmdet_bpu.kernels.reference.blocks import BLOCK, for_each_block, row_blocks
from mmdet_bpu.kernels.reference.carriers import (CARRIERS, check_carriers,
                                                    exact_float_products)
from mmdet_bpu.kernels.reference.epilogue import Epilogue, accumulator_bounds
from mmdet_bpu.kernels.reference.requantizer import Requantizer, output_limits
from mmdet_bpu.program.dtypes import INT32_MAX, TORCH_DTYPES, largest_magnitude
from mmdet_bpu.program.integer_rules import product_fault
from mmdet_bpu.program.numerics import Operand

Tensors = list[torch.Tensor]
# More rows at a time than elementwise work: each product reads the whole weight.
PRODUCT_BLOCK = 4 * BLOCK


@dataclass
class ProductPlan:
    """A weight made ready for its carrier, with its epilogue.

    Attributes:
        carrier (str): Key of :data:`mmdet_bpu.kernels.reference.carriers.CARRIERS`.
        weights (list[torch.Tensor]): The weight in the carrier's format, one per input chunk.
        bias (torch.Tensor | None): Bias in the carrier's format where the products hold it.
        splits (list[int]): Input channels of each chunk.
        epilogue (Epilogue): What follows.
    """

    carrier: str
    weights: Tensors
    bias: Union[torch.Tensor, None]
    splits: list[int]
    epilogue: Epilogue


def plan_linear(operands: list[Operand], attrs: dict) -> ProductPlan:
    """Choose the carrier of a linear layer: float32 within its bound, float64 beyond."""
    weight, bias = operands[1].constant, operands[2].constant
    bounds = accumulator_bounds(weight, bias, operands[0].dtype)
    carrier = 'float32' if bounds.max() <= CARRIERS['float32'].bound else 'float64'
    dtype = CARRIERS[carrier].dtype
    epilogue = Epilogue(operands, attrs, True, 'bpu.linear')
    return ProductPlan(carrier, [weight.to(dtype).t().contiguous()],
                       bias.to(dtype) if bias.any() else None, [weight.shape[1]], epilogue)


@kernel('bpu.linear', plan_linear, probe=check_carriers, constants=(1, 2))
def linear(inputs: Tensors, attrs: dict, plan: ProductPlan) -> Tensors:
    """bpu.linear: (..., C) x (O, C) + (O) [+ residual (..., O)] -> (..., O)."""
    return [_linear(inputs[0], inputs[3] if len(inputs) > 3 else None, plan)]


def _linear(x: torch.Tensor, residual: Union[torch.Tensor, None],
            plan: ProductPlan) -> torch.Tensor:
    weight, epilogue = plan.weights[0], plan.epilogue
    features, channels = weight.shape
    rows = x.reshape(-1, features)
    out = torch.empty((*x.shape[:-1], channels), dtype=TORCH_DTYPES[epilogue.out_dtype],
                      device=x.device)
    target = out.view(-1, channels)
    residual = None if residual is None else residual.reshape(-1, channels)

    def work(part: slice) -> None:
        values = rows[part].to(weight.dtype)
        acc = (values @ weight if plan.bias is None
               else torch.addmm(plan.bias, values, weight)).to(torch.int32)
        epilogue.finish(acc, None if residual is None else residual[part], target[part])

    with exact_float_products():
        for_each_block(work, row_blocks(len(rows), max(features, channels), PRODUCT_BLOCK,
                                        spread=BLOCK), x.device)
    return out


def plan_conv2d(operands: list[Operand], attrs: dict) -> ProductPlan:
    """Plan of bpu.conv2d."""
    return plan_convolution(operands, attrs, 'bpu.conv2d')


def plan_convolution(operands: list[Operand], attrs: dict, op: str) -> ProductPlan:
    """Choose the carrier of a convolution and cut its weight accordingly.

    float32 within its bound; else, for an si16 input, a high and a low byte; else chunks of
    input channels; float64 where not even one channel fits (or groups forbid a cut).
    """
    weight, bias = operands[1].constant, operands[2].constant
    dtype, bound = operands[0].dtype, CARRIERS['float32'].bound
    bounds = accumulator_bounds(weight, bias, dtype)
    nchw = weight.permute(0, 3, 1, 2)
    if bounds.max() <= bound:
        return ProductPlan('float32', [nchw.float()], bias.float(), [nchw.shape[1]],
                           Epilogue(operands, attrs, True, op))
    epilogue = Epilogue(operands, attrs, False, op)
    magnitudes = weight.to(torch.int64).abs().sum((1, 2)).cpu().numpy()  # (O, C / groups)
    largest = 255 if dtype == 'si16' else largest_magnitude(dtype)
    splits = _channel_splits(magnitudes * largest, bound)
    if dtype == 'si32' or not splits or (len(splits) > 1 and attrs['groups'] > 1):
        return ProductPlan('float64', [nchw.double()], None, [nchw.shape[1]], epilogue)
    carrier = 'float32_halves' if dtype == 'si16' else 'float32_chunks'
    parts = [part.contiguous(memory_format=torch.channels_last)
             for part in nchw.float().split(splits, 1)]
    return ProductPlan(carrier, parts, None, splits, epilogue)


def _channel_splits(magnitudes: np.ndarray, bound: int) -> list[int]:
    """Sizes of consecutive groups of input channels whose sums stay within ``bound``.

    Returns an empty list if a single channel exceeds it.
    """
    if magnitudes.max() > bound:
        return []
    sizes, running, size = [], np.zeros(len(magnitudes), np.int64), 0
    for channel in magnitudes.T:
        if (running + channel).max() > bound:
            sizes.append(size)
            running, size = np.zeros_like(running), 0
        running = running + channel
        size += 1
    return [*sizes, size]


@kernel('bpu.conv2d', plan_conv2d, probe=check_carriers, constants=(1, 2))
def conv2d(inputs: Tensors, attrs: dict, plan: ProductPlan) -> Tensors:
    """bpu.conv2d: (N, H, W, C) x (O, KH, KW, C/groups) + (O) [+ residual] -> (N, OH, OW, O)."""
    x = inputs[0]
    residual = inputs[3] if len(inputs) > 3 else None
    stride, dilation = attrs['stride'], attrs['dilation']
    top, left, bottom, right = attrs['pad']
    kernel = plan.weights[0].shape[2:]
    if tuple(kernel) == (1, 1) and attrs['groups'] == 1 and plan.carrier in (
            'float32', 'float64') and not any(attrs['pad']):
        flat = replace(plan, weights=[plan.weights[0].flatten(1).t()])
        return [_linear(x[:, ::stride[0], ::stride[1]], residual, flat)]
    if (top, left) != (bottom, right):
        x = F.pad(x, (0, 0, left, right, top, bottom))
        top = left = 0
    products, factors = [], []
    with exact_float_products():
        for part, weight, factor in carried_parts(x, plan):
            product = F.conv2d(part, weight, plan.bias, tuple(stride), (top, left),
                               tuple(dilation), attrs['groups'])
            products.append(product.permute(0, 2, 3, 1))
            factors.append(factor)
    return [plan.epilogue(products, factors, residual)]


def carried_parts(x: torch.Tensor, plan: ProductPlan
                  ) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """What a convolution's carrier multiplies one after the other.

    Args:
        x (torch.Tensor): Integers, (N, H, W, C).
        plan (ProductPlan): Carrier, weights and splits.

    Yields:
        tuple: Part of the input (N, channels, H, W) and its weight in the carrier's format, and the
        factor of their product in the accumulator.
    """
    halves = plan.carrier == 'float32_halves'
    for source, factor in (((x >> 8, 256), (x & 0xff, 1)) if halves else ((x, 1), )):
        nchw = source.permute(0, 3, 1, 2)
        parts = nchw.split(plan.splits, 1) if len(plan.splits) > 1 else [nchw]
        for part, weight in zip(parts, plan.weights):
            yield part.to(weight.dtype), weight, factor


@dataclass
class MatmulPlan:
    """Carrier of a product of two activations.

    Attributes:
        carrier (str): Key of the carriers' table.
        proved (bool): The types and K alone keep the sums within int32; else each run checks.
        requantizer (Requantizer): Of the result.
    """

    carrier: str
    proved: bool
    requantizer: Requantizer


def plan_matmul(operands: list[Operand], attrs: dict) -> MatmulPlan:
    """Choose the carrier of a product of two activations from their types and K.

    Raises:
        BpuError: for si16 x si16, which the unit does not have.
    """
    lhs, rhs = operands[:2]
    fault = product_fault(lhs.dtype, rhs.dtype)
    if fault:
        raise BpuError(f'bpu.matmul {fault}')
    if 'si32' in (lhs.dtype, rhs.dtype):
        raise BpuError(f'bpu.matmul takes no si32 operand, found {lhs.dtype} x {rhs.dtype}')
    bound = lhs.shape[-1] * largest_magnitude(lhs.dtype) * largest_magnitude(rhs.dtype)
    carrier = 'float32' if bound <= CARRIERS['float32'].bound else 'float64'
    return MatmulPlan(carrier, bound <= INT32_MAX, Requantizer(
        attrs['multiplier'], attrs['shift'], *output_limits(attrs['out_dtypes'][0]),
        bound=min(bound, INT32_MAX)))


@kernel('bpu.matmul', plan_matmul, probe=check_carriers)
def matmul(inputs: Tensors, attrs: dict, plan: MatmulPlan) -> Tensors:
    """bpu.matmul: (..., M, K) x (..., K, N) -> (..., M, N).

    Raises:
        BpuError: if a sum leaves int32 (only looked for where the types do not exclude it).
    """
    dtype = CARRIERS[plan.carrier].dtype
    with exact_float_products():
        acc = inputs[0].to(dtype) @ inputs[1].to(dtype)
    if not plan.proved and acc.numel() and acc.abs().max() > INT32_MAX:
        raise BpuError(f'bpu.matmul: a sum over K = {inputs[0].shape[-1]} left int32: '
                       'enlarge the scale of an operand or make both si8')
    return [plan.requantizer(acc, attrs['out_dtypes'][0])]
