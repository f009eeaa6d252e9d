"""Full size: the stock R50 Deformable DETR (random weights) to .hbm at 1 x 3 x 800 x 1333.

    python benchmarks/full_size.py [--config CONFIG] [--shape 800 1333] [--march nash-e]

Prints JSON: seconds of each step, peak resident memory, operations, file sizes. The
bound that we hold: export, integer conversion and compilation within 10 minutes and 16 GiB on
2 cores.
"""
import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import torch
from detector_setup import CONFIG, build, calibrated
from machine_facts import machine

from mmdet_bpu import apis
from mmdet_bpu.compiler.compile import compile_program
from mmdet_bpu.hbir.builder import operations
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.quantization import quantized_graphs


def peak_gib() -> float:
    """Peak resident memory of this process, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=str(CONFIG))
    parser.add_argument('--shape', type=int, nargs=2, default=(800, 1333))
    parser.add_argument('--march', default='nash-e')
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seconds, began = {}, time.time()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name], began = round(time.time() - began, 1), time.time()

    cfg, model = build(args.config, args.shape)
    lap('build')
    calibrated(cfg, model)
    lap('prepare and observe one image')
    exported = apis.to_integers(quantized_graphs(model), apis.metadata_of(cfg, model))
    lap('export and convert')
    with tempfile.TemporaryDirectory() as folder:
        apis.write_export(exported, folder)
        lap('write texts')
        result = compile_program(program_from_module(exported.integer),
                                 Path(folder) / 'model.hbm', args.march, exported.report)
        lap('compile')
        for suffix in ('hbm', 'int.mlir'):  # a file of this size must pass the checks of a reader
            apis.load_artifact(Path(folder) / f'model.{suffix}')
            lap(f'open model.{suffix}')
        sizes = {p.name: p.stat().st_size for p in sorted(Path(folder).iterdir())}
    deploy = sum(seconds[k] for k in ('export and convert', 'write texts', 'compile'))
    print(json.dumps(dict(
        machine=machine(), config=Path(args.config).name, input_shape=list(args.shape),
        march=args.march, seconds=seconds, seconds_export_convert_compile=round(deploy, 1),
        peak_memory_gib=round(peak_gib(), 2),
        integer_operations=sum(1 for _ in operations(exported.integer)),
        arena_and_constants_mb=round(result.estimate.memory_bytes / 1e6, 1),
        findings={level: sum(f.level == level for f in result.findings)
                  for level in ('error', 'warning', 'note')},
        performance={k: v for k, v in result.estimate.as_vendor_dict()['summary'].items()
                     if k != 'layer details'}, bytes=sizes), indent=1))


if __name__ == '__main__':
    main()
