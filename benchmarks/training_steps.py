"""Training steps and forwards to be timed in turn, and where their time goes."""
import statistics
import time
from typing import Callable, Dict, List, Sequence

import torch
from detector_setup import annotated_samples
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn
from torch.profiler import ProfilerActivity, profile

KINDS = (
    ('fake quantization', ('_OnGrid', '_WeightOnGrid', 'fake_quant')),
    ('products', ('mm', 'conv', 'linear', 'bmm')),
    ('sampling', ('grid_sampler', 'Sampl', 'upsample')),
    ('norms and softmax', ('norm', 'softmax', 'Norm', 'Softmax')),
    ('optimizer', ('Optimizer', 'lerp', 'addcdiv', 'addcmul', 'foreach', 'sqrt')),
    ('memory', ('copy', 'cat', 'stack', 'empty', 'fill', 'zero', 'clone', 'contiguous')),
    ('element by element', ('mul', 'add', 'sub', 'div', 'exp', 'sigmoid', 'relu', 'threshold',
                            'clamp', 'round', 'hardtanh', 'reciprocal', 'neg', 'pow', 'bernoulli',
                            'dropout', 'where', 'log')),
    ('reductions', ('sum', 'mean', 'max', 'min', 'argmax', 'topk', 'sort')))
"""Kind -> parts of the names that torch's profiler gives; the first match counts."""


class Trainer:
    """Training steps as mmengine's loop makes them: ``train_step`` of one batch, nothing else.

    Args:
        model (nn.Module): A detector.
        cfg (Config): Its ``optim_wrapper`` clips gradients and steps.
        batch (int): Images a step.
        shape (tuple): (H, W).
        amp (bool): mmengine's ``AmpOptimWrapper`` instead of the plain one.
    """

    def __init__(self, model: nn.Module, cfg: Config, batch: int, shape: Sequence[int],
                 amp: bool = False) -> None:
        self.model = model.train()
        device = next(model.parameters()).device.type
        generator = torch.Generator().manual_seed(0)
        self.data = dict(
            inputs=list(torch.randint(0, 256, (batch, 3, *shape), dtype=torch.uint8,
                                      generator=generator)),
            data_samples=annotated_samples(batch, shape, device))
        wrapper = dict(cfg.optim_wrapper)
        if amp:
            wrapper.update(type='AmpOptimWrapper')
        self.optim_wrapper = build_optim_wrapper(model, wrapper)

    def step(self) -> float:
        """One step, with the same random numbers each time; the loss."""
        torch.manual_seed(0)
        return self.model.train_step(self.data, self.optim_wrapper)['loss'].item()


def forward(model: nn.Module, images: torch.Tensor, samples) -> Callable[[], None]:
    """A forward of the network, without gradients."""

    def run() -> None:
        with torch.no_grad():
            model(images, samples, mode='tensor')
        if images.is_cuda:
            torch.cuda.synchronize()
    return run


def timed(runs: Dict[str, Callable[[], object]], repeats: int) -> Dict[str, List[float]]:
    """Seconds of each run in each round, after one round to warm up."""
    seconds: Dict[str, List[float]] = {name: [] for name in runs}
    for round_number in range(repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if round_number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(numerator: List[float], denominator: List[float]) -> float:
    """Median of the rounds' ratios."""
    return round(statistics.median(a / b for a, b in zip(numerator, denominator)), 3)


def medians(seconds: Dict[str, List[float]]) -> Dict[str, float]:
    """Median seconds of each run."""
    return {name: round(statistics.median(each), 4) for name, each in seconds.items()}


def time_by_kind(step: Callable[[], object]) -> Dict[str, float]:
    """Seconds of one step by kind of operation, by torch's profiler."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    found: Dict[str, float] = {}
    for event in recorded.key_averages():
        kind = next((kind for kind, parts in KINDS
                     if any(part in event.key for part in parts)), 'other')
        found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / 1e6
    return {kind: round(seconds, 4) for kind, seconds in
            sorted(found.items(), key=lambda item: -item[1])}


def launches(step: Callable[[], object]) -> Dict[str, float]:
    """Kernels that one step launches on CUDA, their time on the device and the step's own, ms."""
    step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    torch.cuda.synchronize()
    wall = time.perf_counter() - began
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        step()
        torch.cuda.synchronize()
    kernels = [event for event in recorded.events()
               if event.device_type == torch.autograd.DeviceType.CUDA]
    return dict(kernels=len(kernels),
                device_ms=round(sum(event.device_time for event in kernels) / 1e3, 2),
                step_ms=round(wall * 1e3, 2))


def copy_bandwidth(elements: int = 1 << 26, repeats: int = 5) -> float:
    """Bytes a second that torch's copy reads and writes, in memory that it has touched before."""
    source, target = torch.zeros(elements), torch.zeros(elements)
    seconds = timed({'copy': lambda: target.copy_(source)}, repeats)['copy']
    return 2 * source.nbytes / min(seconds)
