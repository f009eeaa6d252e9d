"""Speed of exact integers: the integer model of a detector beside its float model, in one run.

    python benchmarks/integer_speed.py [--shape 400 667] [--device cuda] [--kernels reference]

Prints JSON: seconds of the float network (torch, eager) and of the interpreter on one image of
noise, in turn, and the median of the rounds' ratios. With ``--device cuda`` both run there, and the
integers are compared with those of the CPU: they must be the same.
"""
import argparse
import json
import statistics

import torch
from detector_setup import CONFIG, build, calibrated, noise
from machine_facts import machine
from training_steps import forward, ratio, timed

from mmdet_bpu import apis
from mmdet_bpu.engine.artifact_detector import quantize_image
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.families.detector_path import example_samples
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.quantization import quantized_graphs, set_quant_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=str(CONFIG))
    parser.add_argument('--shape', type=int, nargs=2, default=(400, 667))
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--kernels', default='reference')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cfg, model = build(args.config, args.shape)
    calibrated(cfg, model.eval())
    program = program_from_module(
        apis.to_integers(quantized_graphs(model), apis.metadata_of(cfg, model)).integer)
    set_quant_state(model, 'off')
    model.to(args.device)
    image = noise(model, 1, args.shape)
    integers = Interpreter(program, args.device, args.kernels)
    spec = integers.inputs[0]
    quantized = {spec.name: quantize_image(image[0], spec.scale)}

    def run_integers() -> None:
        integers.run(quantized)
        if args.device == 'cuda':
            torch.cuda.synchronize()

    seconds = timed({'float': forward(model, image, example_samples(1, tuple(args.shape))),
                     'int': run_integers}, args.repeats)
    found = dict(machine=machine(), threads=args.threads, shape=list(args.shape),
                 device=args.device, kernels=integers.kernel_counts,
                 seconds={name: round(statistics.median(each), 4)
                          for name, each in seconds.items()},
                 int_ratio=ratio(seconds['int'], seconds['float']))
    if args.device != 'cpu':
        on_cpu = Interpreter(program).run({spec.name: quantized[spec.name].cpu()})
        on_device = integers.run(quantized)
        found['differing_elements'] = {
            name: int((on_device[name].cpu() != values).sum()) for name, values in on_cpu.items()}
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
