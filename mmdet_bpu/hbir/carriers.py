"""Which number format carries an integer product, and the bound that makes it exact.

An integer of magnitude at most 2**24 is exact in float32, and at most 2**53 in float64. If the
sum of the magnitudes of all terms stays within that, every partial sum of a product does too,
whatever the order of the additions and with fused multiply-add or not: the float unit returns the
integer accumulator. It holds for direct products only, not for transformed ones (Winograd, FFT) and
not at reduced precision (TF32, bfloat16): :func:`exact_float_products` switches those off.
"""
import contextlib
from dataclasses import dataclass
from typing import Iterator

import torch


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
    Carrier('float32', torch.float32, 2**24, 'conv2d, linear, matmul, grid_sample',
            'all partial sums are integers of at most 24 bits'),
    Carrier('float32_halves', torch.float32, 2**24, 'conv2d with an si16 input',
            'x = 256 * hi + lo, hi in [-128, 127], lo in [0, 255]: each of the two sums is an '
            'integer of at most 24 bits; they are joined in int32'),
    Carrier('float32_chunks', torch.float32, 2**24, 'conv2d',
            'input channels are cut in groups whose sums are integers of at most 24 bits, '
            'added in int32'),
    Carrier('float64', torch.float64, 2**53, 'conv2d, linear, matmul, grid_sample',
            'all partial sums are integers of at most 53 bits'),
    Carrier('select', torch.float32, 2**24, 'max_pool of si8 and si16',
            'float32 holds each value exactly and comparing keeps their order; no sum is formed'),
    Carrier('select64', torch.float64, 2**53, 'max_pool of si32',
            'float64 holds each value exactly and comparing keeps their order; no sum is formed'),
)}


@contextlib.contextmanager
def exact_float_products() -> Iterator[None]:
    """Keep torch to direct float products at full precision, whatever the user's settings.

    Autocast, TF32 and bfloat16 matrix units, NNPACK and cuDNN (which may choose Winograd or FFT
    convolutions) are off inside, and as they were after.
    """
    precision = torch.get_float32_matmul_precision()
    with contextlib.ExitStack() as stack:
        if torch.is_autocast_enabled('cpu'):
            stack.enter_context(torch.autocast('cpu', enabled=False))
        if torch.backends.nnpack.is_available():
            stack.enter_context(torch.backends.nnpack.flags(enabled=False))
        if torch.cuda.is_available():
            stack.enter_context(torch.autocast('cuda', enabled=False))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False, allow_tf32=False))
        if precision != 'highest':
            torch.set_float32_matmul_precision('highest')
            stack.callback(torch.set_float32_matmul_precision, precision)
        yield
