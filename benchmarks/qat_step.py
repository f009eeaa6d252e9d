"""Speed of training: a QAT step beside a float step, and calibration beside a plain forward.

    python benchmarks/qat_step.py [--batch 2] [--shape 256 320] [--device cuda] [--amp]

Prints JSON. A step is forward, losses, backward and AdamW on a batch of noise with random boxes,
of the same detector in float and prepared. All kinds run in turn, ``--repeats`` rounds; a ratio is
the median of the rounds' ratios. With CUDA also the kernels launched in one step, and how long
Python took to launch them.
"""
import argparse
import copy
import json
import statistics
import time
from typing import Callable, Dict, List

import torch
from detector_setup import CONFIG, annotated_samples, build, calibrated, noise
from machine_facts import machine
from torch import nn

from mmdet_bpu.quantization import set_quant_state


class Trainer:
    """Training steps of one model.

    Args:
        model (nn.Module): A detector in training mode.
        batch (int): Images a step.
        shape (tuple): (H, W).
        amp (bool): Under autocast to float16 with a gradient scaler, as mmengine's wrapper.
    """

    def __init__(self, model: nn.Module, batch: int, shape, amp: bool) -> None:
        self.model, self.amp = model.train(), amp
        self.device = next(model.parameters()).device.type
        self.images = noise(model, batch, shape)
        self.samples = annotated_samples(batch, shape, self.device)
        self.optimizer = torch.optim.AdamW(
            [each for each in model.parameters() if each.requires_grad], lr=1e-6)
        self.scaler = torch.amp.GradScaler(self.device, enabled=amp)

    def step(self) -> float:
        """One step; the loss."""
        with torch.autocast(self.device, dtype=torch.float16, enabled=self.amp):
            losses = self.model(self.images, self.samples, mode='loss')
            loss = self.model.parse_losses(losses)[0]
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item()  # waits for the device


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


def launches(step: Callable[[], object]) -> Dict[str, float]:
    """Kernels that one step launches on CUDA, their time on the device and the step's own, ms."""
    from torch.profiler import ProfilerActivity, profile
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=str(CONFIG))
    parser.add_argument('--shape', type=int, nargs=2, default=(256, 320))
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cfg, floating = build(args.config, args.shape, args.device)
    quantized = calibrated(cfg, copy.deepcopy(floating))
    trainers = {name: Trainer(model, args.batch, args.shape, args.amp)
                for name, model in (('float', floating), ('qat', quantized))}
    steps = timed({name: trainer.step for name, trainer in trainers.items()}, args.repeats)
    found = dict(
        machine=machine(), threads=args.threads, batch=args.batch, shape=list(args.shape),
        amp=args.amp, step_seconds={name: round(statistics.median(each), 4)
                                    for name, each in steps.items()},
        losses={name: trainer.step() for name, trainer in trainers.items()},
        qat_step_ratio=ratio(steps['qat'], steps['float']))
    if args.device == 'cuda':
        found['launches'] = {name: launches(trainer.step) for name, trainer in trainers.items()}
    images, samples = trainers['qat'].images, trainers['qat'].samples
    floating.eval(), quantized.eval()
    plain = timed({'float': forward(floating, images, samples),
                   'quantize': forward(quantized, images, samples)}, args.repeats)
    set_quant_state(quantized, 'observe')
    observing = timed({'float': forward(floating, images, samples),
                       'observe': forward(quantized, images, samples)}, args.repeats)
    found.update(forward_seconds=round(statistics.median(plain['float']), 4),
                 quantized_forward_ratio=ratio(plain['quantize'], plain['float']),
                 observing_forward_ratio=ratio(observing['observe'], observing['float']))
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
