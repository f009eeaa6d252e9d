"""Speed of exact integers: the integer model of a detector beside its float model, in one run.

    python benchmarks/integer_speed.py [--shape 800 1333] [--config CONFIG] [--no-fuse] [--memory]
    python benchmarks/integer_speed.py --device cuda --kernels reference

Prints JSON, all times in turn in one process, medians of the rounds in seconds:

* ``float_s``: the float network, torch eager; ``compiled_s`` by torch.compile, null with the reason
  in ``compiled`` where it does not work (``--no-compile`` leaves it out);
* ``reference_s``, ``fast_s``: the interpreter with either kernel set; ``simulator_s``: the .hbm with
  the fast one; ``float_over_fast``: median of the rounds' ratios;
* ``equal``: whether all outputs, and every tensor that the fast set stores, are those of the
  reference; with ``--no-fuse`` it stores every tensor of the program;
* ``ops``: per op, steps, share of the time and megabytes read and written, of the fast set;
* ``trunk``: a ResNet-50 trunk of the same size by our fast kernels and by ONNX Runtime and OpenVINO where
  they are installed (``integer_peers.py``; ``--no-peers`` leaves it out);
* ``peak_mib`` with ``--memory``: most memory that a run takes beyond what was there before it, float
  and fast, each in a process of its own.

With ``--device cuda`` float and the reference run there, and outputs are compared with the CPU's.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Dict, Tuple

import torch
from detector_setup import CONFIG, build, calibrated, noise
from integer_peers import trunk_speeds
from machine_facts import machine
from training_steps import forward, ratio, timed

from mmdet_bpu import apis
from mmdet_bpu.compiler.compile import write_hbm
from mmdet_bpu.engine.artifact_detector import quantize_image
from mmdet_bpu.executors import HbmSimulator, Interpreter
from mmdet_bpu.families.detector_path import example_samples
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.kernels.registry import description
from mmdet_bpu.program.hbm_file import read_hbm
from mmdet_bpu.program.program import Program
from mmdet_bpu.quantization import quantized_graphs, set_quant_state


def integer_program(args: argparse.Namespace) -> Tuple[torch.nn.Module, Program]:
    """The detector with random weights, calibrated on noise and back in float; its program."""
    cfg, model = build(args.config, args.shape)
    calibrated(cfg, model.eval())
    program = program_from_module(
        apis.to_integers(quantized_graphs(model), apis.metadata_of(cfg, model)).integer)
    set_quant_state(model, 'off')
    return model, program


def stored(network: Interpreter, inputs: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
    """Every tensor that a run stores, on the CPU."""
    found = {}

    def keep(instruction, operands, results) -> None:
        found.update((name, result.cpu().clone())
                     for name, result in zip(instruction.outputs, results))

    network.run(inputs, keep)
    return found


def by_op(network: Interpreter, inputs: Dict[str, torch.Tensor], repeats: int) -> Dict[str, dict]:
    """Steps, share of the time and megabytes moved, per op; the quickest of some runs."""
    best: Tuple[float, dict] = (float('inf'), {})
    for _ in range(repeats):
        rows = defaultdict(lambda: [0, 0.0, 0])
        before = time.perf_counter()

        def count(instruction, operands, results) -> None:
            nonlocal before
            row, now = rows[instruction.op], time.perf_counter()
            row[0] += 1
            row[1] += now - before
            row[2] += sum(each.numel() * each.element_size() for each in [*operands, *results])
            before = time.perf_counter()

        network.run(inputs, count)
        total = sum(row[1] for row in rows.values())
        best = min(best, (total, rows), key=lambda each: each[0])
    total, rows = best
    return {op: dict(steps=steps, share=round(seconds / total, 3), megabytes=round(moved / 1e6, 1))
            for op, (steps, seconds, moved) in sorted(rows.items(), key=lambda row: -row[1][1])}


def peak_of(kind: str, program: Path, args: argparse.Namespace) -> float:
    """Peak of one kind in a new process, MiB."""
    command = [sys.executable, __file__, '--config', args.config, '--shape', *map(str, args.shape),
               '--threads', str(args.threads), '--peak-of', kind, '--program', str(program)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(args: argparse.Namespace) -> None:
    """Print how far the resident set rises in the first run of a new process, MiB."""
    if args.peak_of == 'float':
        _, model = build(args.config, args.shape)
        run = forward(model.eval(), noise(model, 1, args.shape),
                      example_samples(1, tuple(args.shape)))
    else:
        program = read_hbm(args.program).networks[0].program
        network = Interpreter(program, kernels=args.peak_of)
        spec = network.inputs[0]
        inputs = {spec.name: torch.zeros(spec.shape, dtype=torch.int8)}

        def run() -> None:
            network.run(inputs)

    before = resident('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # the peak is counted from now on
    run()
    print(json.dumps(round(resident('VmHWM') - before, 1)))


def resident(field: str) -> float:
    """A field of this process's status, MiB."""
    line = next(line for line in Path('/proc/self/status').read_text().splitlines()
                if line.startswith(field + ':'))
    return int(line.split()[1]) / 1024


def compiled_float(model: torch.nn.Module, image: torch.Tensor, samples) -> Tuple[object, str]:
    """A run of the network by torch.compile, or None, and why."""
    run = forward(torch.compile(model), image, samples)
    try:
        run()
    except Exception as error:  # whatever a compiler that is not ours raises
        return None, f'{type(error).__name__}: {str(error).splitlines()[0]}'
    return run, 'torch.compile'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=str(CONFIG))
    parser.add_argument('--shape', type=int, nargs=2, default=(400, 667))
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--kernels', nargs='+', default=['reference', 'fast'])
    parser.add_argument('--no-fuse', action='store_true', help='one instruction at a time')
    parser.add_argument('--no-compile', action='store_true', help='do not time torch.compile')
    parser.add_argument('--no-peers', action='store_true', help='do not time other toolkits')
    parser.add_argument('--memory', action='store_true', help='measure peaks too')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--peak-of', help=argparse.SUPPRESS)
    parser.add_argument('--program', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak_of:
        measure_peak(args)
        return
    model, program = integer_program(args)
    image, samples = noise(model, 1, args.shape), example_samples(1, tuple(args.shape))
    networks = {name: Interpreter(program, args.device, name, fuse=not args.no_fuse)
                for name in args.kernels}
    spec = program.spec(program.inputs[0])
    inputs = {spec.name: quantize_image(image[0], spec.scale)}
    model.to(args.device)
    runs = {'float': forward(model, image.to(args.device), samples)}
    for name, network in networks.items():
        runs[name] = finished(network, inputs, args.device)
    found = dict(machine=machine(), threads=args.threads, config=Path(args.config).name,
                 shape=list(args.shape), device=args.device, fused=not args.no_fuse)
    with tempfile.TemporaryDirectory() as folder:
        hbm = Path(folder) / 'model.hbm'
        write_hbm(program, hbm, 'nash-e')
        if args.device == 'cpu' and 'fast' in networks:
            simulator = HbmSimulator(hbm, 'fast', not args.no_fuse)
            runs['simulator'] = finished(simulator, inputs, args.device)
        if not args.no_compile:
            runs['compiled'], found['compiled'] = compiled_float(model, image, samples)
        seconds = timed({name: run for name, run in runs.items() if run}, args.repeats)
        found.update({f'{name}_s': round(statistics.median(seconds[name]), 4)
                      if name in seconds else None for name in runs})
        found.update({f'float_over_{name}': ratio(seconds['float'], seconds[name])
                      for name in seconds if name != 'float'})
        found['kernels'] = {name: description(network.kernel_counts)
                            for name, network in networks.items()}
        expected = stored(Interpreter(program), inputs)
        kept = {name: stored(network, inputs) for name, network in networks.items()}
        found['tensors_compared'] = {name: len(tensors) for name, tensors in kept.items()}
        found['equal'] = all(torch.equal(tensor, expected[name])
                             for tensors in kept.values() for name, tensor in tensors.items())
        if 'simulator' in runs:
            found['equal'] &= all(torch.equal(tensor, expected[name])
                                  for name, tensor in simulator.run(inputs).items())
        if 'fast' in networks:
            found['ops'] = by_op(networks['fast'], inputs, args.repeats)
        if args.device == 'cpu' and not args.no_peers:
            found['trunk'] = trunk_speeds(args.shape, args.threads, args.repeats)
        if args.memory:
            found['peak_mib'] = {kind: peak_of(kind, hbm, args) for kind in ('float', 'fast')}
    print(json.dumps(found, indent=1))


def finished(network, inputs: Dict[str, torch.Tensor], device: str):
    """A run of a network that ends when the device has ended."""

    def run() -> None:
        network.run(inputs)
        if device == 'cuda':
            torch.cuda.synchronize()

    return run


if __name__ == '__main__':
    main()
