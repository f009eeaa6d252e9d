"""Build the models whose latency is published, and write what an estimate reads of their programs.

    python benchmarks/cost_programs.py [--only ROW ...]

Each is captured, calibrated on one image of noise with random weights, and made an integer program:
operations, shapes and types are those of the real road, numbers mean nothing. Writes one JSON per
row to benchmarks/results/published/ and prints operations beside the published ones. The vendor's
models are int8 where our template keeps the features of a prediction in int16.
"""
import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn
from published_models.rows import ROWS
from machine_facts import machine
from program_shapes import write_shapes

from mmdet_bpu.analysis.model_check import observe_random_image, set_random_weights
from mmdet_bpu.compiler.unit_work import count_macs
from mmdet_bpu.compiler.published import PUBLISHED_NASH_E
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.lowering.export import lower_networks
from mmdet_bpu.program.program import Program
from mmdet_bpu.quantization import model_report, prepare, quantized_graphs
from mmdet_bpu.quantization.template import PREDICTION_FEATURES

FOLDER = Path(__file__).resolve().parent / 'results' / 'published'


def prepared(name: str, shape: tuple, rules: list) -> nn.Module:
    """A row's detector with quantizers."""
    model = ROWS[name]().eval()
    set_random_weights(model)
    prepare(model, dict(input_shape=shape, qconfig=rules, calibration=dict(observer='minmax')))
    return model


@torch.no_grad()
def program_of_row(name: str, shape: tuple) -> Program:
    """Integer program of a row, (height, width) px."""
    wide = [dict(site=row['site'], dtype='int8') for row in model_report(prepared(name, shape, []))
            if row['rule'] == f'template: {PREDICTION_FEATURES}']
    model = prepared(name, shape, wide)
    observe_random_image(model)
    return program_from_module(lower_networks(quantized_graphs(model)).convert().result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=ROWS, default=list(ROWS), metavar='ROW')
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = {}
    for row in PUBLISHED_NASH_E:
        if row.name not in args.only:
            continue
        began = time.time()
        program = program_of_row(row.name, tuple(row.input_shape[2:]))
        write_shapes(program, FOLDER / f'{row.name}.json')
        ours = 2 * sum(count_macs(program, each) for each in program.instructions) / 1e9
        rows[row.name] = dict(gops=round(ours, 3), published_gops=row.gops,
                              off=f'{ours / row.gops - 1:+.1%}',
                              instructions=len(program.instructions),
                              seconds=round(time.time() - began, 1))
        print(row.name, rows[row.name], flush=True)
    print(json.dumps(dict(machine=machine(), rows=rows), indent=1))


if __name__ == '__main__':
    main()
