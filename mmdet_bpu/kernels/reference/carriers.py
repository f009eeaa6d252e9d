"""Which number format carries an integer product, and the bound that makes it exact.

An integer of magnitude at most 2**24 is exact in float32, and at most 2**53 in float64. If the
sum of the magnitudes of all terms stays within that, every partial sum of a product does too,
whatever the order of the additions and with fused multiply-add or not: the float unit returns the
integer accumulator. It holds for direct products only, not for transformed ones (Winograd, FFT) and
not at reduced precision (TF32, bfloat16): :func:`exact_float_products` switches those off.
"""
import contextlib
import functools
from dataclasses import dataclass
from typing import Iterator

import torch
import torch.nn.functional as F

from mmdet_bpu.errors import BpuError


@dataclass(frozen=True)
class Carrier:
    """One way of computing an integer sum of products.

    Attributes:
        name (str): As it appears in plans and in docs/numerics.md.
        dtype (torch.dtype): Number format of the operands and of the sum.
        bound (int): Largest sum of magnitudes for which it is exact.
        used_by (str): Kernels that choose it.
        proof (str): Why it is exact up to the bound.
    """

    name: str
    dtype: torch.dtype
    bound: int
    used_by: str
    proof: str


CARRIERS = {carrier.name: carrier for carrier in (
    Carrier('float32', torch.float32, 2**24,
            'conv2d, conv_transpose2d, deform_conv2d, linear, matmul, grid_sample',
            'all partial sums are integers of at most 24 bits'),
    Carrier('float32_halves', torch.float32, 2**24,
            'conv2d and conv_transpose2d with an si16 input',
            'x = 256 * hi + lo, hi in [-128, 127], lo in [0, 255]: each of the two sums is an '
            'integer of at most 24 bits; they are joined in int32'),
    Carrier('float32_chunks', torch.float32, 2**24, 'conv2d, conv_transpose2d',
            'input channels are cut in groups whose sums are integers of at most 24 bits, '
            'added in int32'),
    Carrier('float64', torch.float64, 2**53,
            'conv2d, deform_conv2d, linear, matmul, grid_sample',
            'all partial sums are integers of at most 53 bits'),
    Carrier('select', torch.float32, 2**24, 'max_pool of si8 and si16',
            'float32 holds each value exactly and comparing keeps their order; no sum is formed'),
    Carrier('select64', torch.float64, 2**53, 'max_pool of si32',
            'float64 holds each value exactly and comparing keeps their order; no sum is formed'),
)}


# Per operation since torch 2.9; before, one setting for all of them.
PRECISION_SETTINGS = [
    getattr(getattr(torch.backends, backend), unit)
    for backend, unit in (('mkldnn', 'matmul'), ('mkldnn', 'conv'), ('cuda', 'matmul'))
    if hasattr(getattr(getattr(torch.backends, backend), unit, None), 'fp32_precision')]


@contextlib.contextmanager
def exact_float_products() -> Iterator[None]:
    """Keep torch to direct float products at full precision, whatever the user's settings.

    Autocast, TF32 and bfloat16 matrix units, NNPACK and cuDNN (which may choose Winograd or FFT
    convolutions) are off inside, and as they were after.
    """
    with contextlib.ExitStack() as stack:
        if torch.is_autocast_enabled('cpu'):
            stack.enter_context(torch.autocast('cpu', enabled=False))
        if torch.backends.nnpack.is_available():
            stack.enter_context(torch.backends.nnpack.flags(enabled=False))
        if torch.cuda.is_available():
            stack.enter_context(torch.autocast('cuda', enabled=False))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False, allow_tf32=False))
        if PRECISION_SETTINGS:
            for setting in PRECISION_SETTINGS:
                before = setting.fp32_precision
                if before not in ('none', 'ieee'):
                    setting.fp32_precision = 'ieee'
                    stack.callback(setattr, setting, 'fp32_precision', before)
        elif torch.get_float32_matmul_precision() != 'highest':
            stack.callback(torch.set_float32_matmul_precision,
                           torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision('highest')
        yield


@functools.lru_cache(maxsize=None)
def check_carriers(device: str = 'cpu') -> None:
    """Drive the float units to their bound once and compare with integers.

    A machine or a library setting that lowers the precision where :func:`exact_float_products`
    cannot reach (an environment variable of oneDNN, an unknown device) shows here.

    Raises:
        BpuError: if a float unit does not return the integer.
    """
    features = 4 * 4 * 64  # terms of 127 * 127 .. 128 * 128: the sum reaches 2**24
    values = 128 - torch.arange(features * 3).remainder(2).reshape(3, features)
    weight = 128 - torch.arange(features * 5).remainder(3).clamp(max=1).reshape(5, features)
    expected = (values[:, None] * weight[None]).sum(-1)
    expected[0, 0] -= 1  # one odd sum
    with exact_float_products():
        for dtype in (torch.float32, torch.float64):
            x, w = values.to(device, dtype), weight.to(device, dtype)
            bias = torch.zeros(5, dtype=dtype, device=device)
            nhwc = x.view(3, 4, 4, 64).permute(0, 3, 1, 2)
            kernel = w.view(5, 4, 4, 64).permute(0, 3, 1, 2)
            bags = torch.arange(features, device=device).expand(3, -1)
            results = {'matmul': torch.addmm(bias, x, w.t()),
                       'conv2d': F.conv2d(nhwc, kernel).flatten(1),
                       'conv_transpose2d': F.conv_transpose2d(
                           nhwc, kernel.flip(2, 3).transpose(0, 1), padding=3).flatten(1),
                       'embedding_bag': F.embedding_bag(bags, w.t().contiguous(), mode='sum',
                                                        per_sample_weights=x)}
            for unit, result in results.items():
                result[0, 0] -= 1
                if not torch.equal(result.cpu().to(torch.int64), expected):
                    raise BpuError(
                        f'{unit} in {dtype} on {device} does not return exact integers below its '
                        'bound: look for settings that lower the precision of float32 products '
                        '(ONEDNN_DEFAULT_FPMATH_MODE, TF32) and switch them off')
