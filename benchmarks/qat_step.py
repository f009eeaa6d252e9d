"""Speed of training: a QAT step beside a float step, and calibration beside a plain forward.

    python benchmarks/qat_step.py [--model r50 ...] [--no-numba] [--device cuda] [--amp]

Prints JSON. The float step is that of the unmodified stock config: mmengine's ``train_step``
(preprocessing, forward, losses, backward, clipping, optimizer) on a batch of noise with random
boxes; the QAT step is the same of the prepared detector under its own recipe. All kinds run in turn,
``--repeats`` rounds after one to warm up; a ratio is the median of the rounds' ratios. Per model:

    qat_over_float           a step
    quantized_over_forward   a forward without gradients
    identity_over_forward    likewise with quantizers that do nothing: sites and opened functions
    observe_over_forward     a forward of calibration
    floor                    elements that are quantized; reading and writing each of them once
    profile                  seconds of a step by kind of operation

With CUDA also the kernels launched in one step, and how long Python took to launch them. Where
torchao or NNCF is installed, their QAT step of the ResNet-50 trunk stands beside a float step of it.
"""
import argparse
import contextlib
import json
import os
import sys
from typing import Dict, Sequence

MODELS = {
    'r50': ('mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', (256, 320), 2),
    'r50_480x800': ('mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', (480, 800), 1),
    'retinanet_r18': ('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', (256, 320), 2)}
"""Name -> stock config, (H, W), images a step."""


def measured(config: str, shape: Sequence[int], batch: int, args: argparse.Namespace) -> dict:
    """All figures of one model."""
    from detector_setup import noise, pair
    from mmdet_bpu.quantization import set_quant_state
    from training_steps import (Trainer, forward, launches, medians, ratio, time_by_kind, timed)
    models, configs = pair(config, shape, args.device)
    trainers = {name: Trainer(model, configs[name], batch, shape, args.amp)
                for name, model in models.items()}
    losses = {name: trainer.step() for name, trainer in trainers.items()}
    steps = timed({name: trainer.step for name, trainer in trainers.items()}, args.repeats)
    found = dict(config=config, shape=list(shape), batch=batch, first_losses=losses,
                 step_seconds=medians(steps), qat_over_float=ratio(steps['qat'], steps['float']))
    if args.device == 'cuda':
        found['launches'] = {name: launches(trainer.step) for name, trainer in trainers.items()}
    else:
        found['profile'] = {name: time_by_kind(trainer.step) for name, trainer in trainers.items()}
    images = noise(models['float'], batch, shape)
    samples = trainers['float'].data['data_samples']
    del trainers
    floating, quantized = models['float'].eval(), models['qat'].eval()
    plain, other = (forward(model, images, samples) for model in (floating, quantized))
    found['floor'] = floor(quantized, other)
    for name, state in (('quantized', 'quantize'), ('observe', 'observe'), ('identity', None)):
        set_quant_state(quantized, state or 'observe')
        if state is None:
            switch_off(quantized)
        seconds = timed({'float': plain, name: other}, args.repeats)
        found[f'{name}_over_forward'] = ratio(seconds[name], seconds['float'])
        found.setdefault('forward_seconds', {}).update(medians(seconds))
    return found


def floor(quantized, run) -> Dict[str, float]:
    """Elements that a forward quantizes, and seconds to read and write each of them once."""
    from mmdet_bpu.quantization import quantization_of
    from training_steps import copy_bandwidth
    elements = [0]

    def count(module, given, output) -> None:
        elements[0] += given[0].numel()

    hooks = [quantizer.register_forward_hook(count)
             for quantizer in quantization_of(quantized).quantizers.values()]
    run()
    for hook in hooks:
        hook.remove()
    bandwidth = copy_bandwidth()
    return dict(elements=elements[0], copy_gb_per_s=round(bandwidth / 1e9, 2),
                forward_seconds=round(8 * elements[0] / bandwidth, 4),
                step_seconds=round(16 * elements[0] / bandwidth, 4))


def switch_off(quantized) -> None:
    """Quantizers that give back what they get, while sites are found and functions opened."""
    from mmdet_bpu.quantization import quantization_of
    from mmdet_bpu.quantization.fake_quant import QuantState
    for quantizer in quantization_of(quantized).quantizers.values():
        quantizer.state = QuantState.OFF


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--no-numba', action='store_true', help='as where it is not installed')
    parser.add_argument('--no-peers', action='store_true', help='no torchao, no NNCF')
    args = parser.parse_args()
    if args.no_numba:
        os.environ['MMDET_BPU_NO_NUMBA'] = '1'  # before anything asks
    import torch
    from machine_facts import machine
    from mmdet_bpu.kernels.compiled_loops import usable
    torch.set_num_threads(args.threads)
    found = dict(machine=machine(), threads=args.threads, amp=args.amp, numba=usable(), models={})
    with contextlib.redirect_stdout(sys.stderr):  # mmengine logs there what it builds
        for name in args.model:
            print(f'{name} ...', flush=True)
            found['models'][name] = measured(*MODELS[name], args)
        if not args.no_peers and args.device == 'cpu':
            from qat_peers import trunk_steps
            found['trunk'] = trunk_steps(args.repeats)
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
