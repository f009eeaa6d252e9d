"""Time of the integer kernels beside torch float32 eager, in one run.

Prints one JSON object: per case the median ms of the integer kernel (with its plan made before, as
the executors do) and of the same op in float32, their ratio, and the carrier or requantization
path that was chosen. Shapes are those of the R50 model at 800 x 1333 and of the demo at 160 x 160.

    python benchmarks/kernels.py [--repeats 5] [--threads 2] [--only conv2d]
"""
import argparse
import json
import platform
import statistics
import time
from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F

from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.program.dtypes import INTEGER_RANGES, TORCH_DTYPES
from mmdet_bpu.program.numerics import Operand, quantize_multiplier
from mmdet_bpu.program.sampling_grid import axis_sampling
from mmdet_bpu.program.table_fit import build_table

Case = tuple[str, list[torch.Tensor], set[int], dict, Callable[[], torch.Tensor]]


def integers(*shape: int, dtype: str = 'si8') -> torch.Tensor:
    """Uniform integers over the whole type (weights and biases included)."""
    low, high = INTEGER_RANGES[dtype]
    return torch.randint(low, high + 1, shape).to(TORCH_DTYPES[dtype])


def conv_case(height: int, width: int, c_in: int, c_out: int, kernel: int, stride: int = 1,
              residual: bool = False) -> Case:
    """Convolution with bias, optional residual and relu, against the float sequence."""
    x, weight = integers(1, height, width, c_in), integers(c_out, kernel, kernel, c_in)
    bias = torch.randint(-5000, 5000, (c_out,), dtype=torch.int32)
    pad = kernel // 2
    reals = [quantize_multiplier(1 / (300 * (kernel * kernel * c_in)**0.5 * (1 + i / c_out)))
             for i in range(c_out)]
    attrs = dict(stride=[stride] * 2, pad=[pad] * 4, dilation=[1, 1], groups=1, relu=True,
                 multiplier=[m for m, _ in reals], shift=[s for _, s in reals],
                 out_dtypes=['si8'])
    inputs = [x, weight, bias]
    nchw = x.permute(0, 3, 1, 2).float()
    w, b = weight.permute(0, 3, 1, 2).float(), bias.float()
    side = F.conv2d(nchw, w, b, stride, pad)
    if residual:
        inputs.append(integers(1, *side.shape[2:], c_out))
        attrs.update(residual_multiplier=[20000], residual_shift=[8])

    def reference() -> torch.Tensor:
        out = F.conv2d(nchw, w, b, stride, pad)
        return (out.add_(side) if residual else out).relu_()
    return 'bpu.conv2d', inputs, {1, 2}, attrs, reference


def linear_case(rows: int, c_in: int, c_out: int, dtype: str = 'si8') -> Case:
    """Linear layer with bias and relu."""
    x, weight = integers(rows, c_in, dtype=dtype), integers(c_out, c_in)
    bias = torch.randint(-5000, 5000, (c_out,), dtype=torch.int32)
    largest = INTEGER_RANGES[dtype][1]
    m, s = quantize_multiplier(0.5 / (largest * c_in**0.5))
    attrs = dict(multiplier=[m], shift=[s], relu=True, out_dtypes=['si8'])
    xf, wf, bf = x.float(), weight.float(), bias.float()
    return 'bpu.linear', [x, weight, bias], {1, 2}, attrs, lambda: F.linear(xf, wf, bf).relu_()


def matmul_case(heads: int, rows: int, inner: int, columns: int, dtype: str = 'si8') -> Case:
    """Batched product of two activations."""
    lhs, rhs = integers(heads, rows, inner, dtype=dtype), integers(heads, inner, columns)
    m, s = quantize_multiplier(0.5 / (INTEGER_RANGES[dtype][1] * inner**0.5))
    attrs = dict(multiplier=[m], shift=[s], out_dtypes=['si8'])
    a, b = lhs.float(), rhs.float()
    return 'bpu.matmul', [lhs, rhs], set(), attrs, lambda: a @ b


def add_case(shape: tuple[int, ...], other: tuple[int, ...], dtype: str) -> Case:
    """Addition with 4 guard bits."""
    lhs, rhs = integers(*shape, dtype=dtype), integers(*other, dtype=dtype)
    attrs = dict(lhs_multiplier=[20000], lhs_shift=[11], rhs_multiplier=[30000], rhs_shift=[11],
                 guard_bits=4, relu=False, out_dtypes=[dtype])
    a, b = lhs.float(), rhs.float()
    return 'bpu.add', [lhs, rhs], set(), attrs, lambda: a + b


def mul_case(shape: tuple[int, ...], other: tuple[int, ...], dtype: str) -> Case:
    """Product, broadcast."""
    lhs, rhs = integers(*shape), integers(*other, dtype=dtype)
    m, s = quantize_multiplier(1 / INTEGER_RANGES[dtype][1])
    attrs = dict(multiplier=[m], shift=[s], out_dtypes=['si8'])
    a, b = lhs.float(), rhs.float()
    return 'bpu.mul', [lhs, rhs], set(), attrs, lambda: a * b


def table_case(shape: tuple[int, ...], dtype: str) -> Case:
    """Sigmoid by table."""
    x = integers(*shape, dtype=dtype)
    high = INTEGER_RANGES[dtype][1]
    built = build_table(lambda v: 1 / (1 + np.exp(-v)), dtype, 8 / high, dtype, 1 / high)
    xf = x.float()
    return ('bpu.table', [x], set(), {**built.attrs, 'out_dtypes': [dtype]},
            lambda: torch.sigmoid(xf))


def reduce_case(shape: tuple[int, ...], dims: list[int], dtype: str) -> Case:
    """Mean."""
    x = integers(*shape, dtype=dtype)
    m, s = quantize_multiplier(1 / np.prod([shape[d] for d in dims]))
    attrs = dict(dims=dims, multiplier=[m], shift=[s], out_dtypes=[dtype])
    xf = x.float()
    return 'bpu.reduce_sum', [x], set(), attrs, lambda: xf.mean(dims, keepdim=True)


def sample_case(heads: int, height: int, width: int, channels: int, queries: int) -> Case:
    """Sampling of 4 points a query close to the query's own place, as attention does."""
    values = integers(heads, height, width, channels)
    base = torch.linspace(-0.9, 0.9, queries)[None, :, None, None]
    real = (base + torch.randn(heads, queries, 4, 2) * 0.02).clamp(-1.2, 1.2)
    scale = 1.25 / 32768
    grid = (real / scale).round().clamp(-32768, 32767).to(torch.int16)
    x, y = axis_sampling(width, scale), axis_sampling(height, scale)
    attrs = dict(x_multiplier=[x.multiplier], x_shift=[x.shift], x_offset=x.offset,
                 y_multiplier=[y.multiplier], y_shift=[y.shift], y_offset=y.offset,
                 fraction_bits=8, padding='zeros', out_dtypes=['si8'])
    image = values.permute(0, 3, 1, 2).float().contiguous()
    return ('bpu.grid_sample', [values, grid], set(), attrs,
            lambda: F.grid_sample(image, real, align_corners=False))


CASES: dict[str, Callable[[], Case]] = {
    'conv2d 7x7/2 800x1333 3->64': lambda: conv_case(800, 1333, 3, 64, 7, 2),
    'conv2d 3x3 200x334 64->64': lambda: conv_case(200, 334, 64, 64, 3),
    'conv2d 1x1 200x334 64->256 residual': lambda: conv_case(200, 334, 64, 256, 1, 1, True),
    'conv2d 3x3 50x84 256->256': lambda: conv_case(50, 84, 256, 256, 3),
    'conv2d 3x3 25x42 512->512': lambda: conv_case(25, 42, 512, 512, 3),
    'conv2d 3x3 20x20 128->128 residual': lambda: conv_case(20, 20, 128, 128, 3, 1, True),
    'linear 22223x256->256': lambda: linear_case(22223, 256, 256),
    'linear 22223x256->1024': lambda: linear_case(22223, 256, 1024),
    'linear 22223x1024->256': lambda: linear_case(22223, 1024, 256),
    'linear 22223x256->256 si16': lambda: linear_case(22223, 256, 256, 'si16'),
    'linear 525x256->256': lambda: linear_case(525, 256, 256),
    'matmul 8x300x32x300': lambda: matmul_case(8, 300, 32, 300),
    'matmul 8x300x300x32 si16': lambda: matmul_case(8, 300, 300, 32, 'si16'),
    'add 22223x256 si8': lambda: add_case((22223, 256), (22223, 256), 'si8'),
    'add 22223x256 si16': lambda: add_case((22223, 256), (22223, 256), 'si16'),
    'add 525x256 si8': lambda: add_case((525, 256), (525, 256), 'si8'),
    'mul 8x22223x16x32 by 8x22223x16x1': lambda: mul_case((8, 22223, 16, 32),
                                                          (8, 22223, 16, 1), 'si8'),
    'table 22223x256 si8': lambda: table_case((22223, 256), 'si8'),
    'table 22223x256 si16': lambda: table_case((22223, 256), 'si16'),
    'reduce_sum 22223x256 over 256 si16': lambda: reduce_case((22223, 256), [1], 'si16'),
    'reduce_sum 8x22223x16x32 over 16': lambda: reduce_case((8, 22223, 16, 32), [2], 'si8'),
    'grid_sample 8x100x167x32 22223x4': lambda: sample_case(8, 100, 167, 32, 22223),
    'grid_sample 8x20x20x32 525x4': lambda: sample_case(8, 20, 20, 32, 525),
}


def median_ms(run: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call in ms, after one call to warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def measure(case: Case, repeats: int) -> dict:
    """Time one case."""
    op, inputs, constants, attrs, reference = case
    operands = [Operand.of(t, i in constants) for i, t in enumerate(inputs)]
    prepared = KERNELS[op].plan(operands, attrs)
    integer = median_ms(lambda: prepared(inputs), repeats)
    floating = median_ms(reference, repeats)
    plan = prepared.plan
    requantizer = getattr(getattr(plan, 'epilogue', plan), 'requantizer', plan)
    return {'int_ms': round(integer, 3), 'float32_ms': round(floating, 3),
            'ratio': round(integer / floating, 2), 'carrier': getattr(plan, 'carrier', None),
            'requantize': getattr(requantizer, 'path', None)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=5, help='timed calls per case')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--only', default='', help='only cases whose name contains this')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    results = {name: measure(build(), args.repeats)
               for name, build in CASES.items() if args.only in name}
    print(json.dumps({'torch': torch.__version__, 'machine': platform.machine(),
                      'threads': args.threads, 'repeats': args.repeats, 'cases': results},
                     indent=1))


if __name__ == '__main__':
    main()
