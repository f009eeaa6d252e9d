"""How time and memory of a deployment grow with a detector: exponents, fitted in log-log.

    python benchmarks/growth.py [--config CONFIG] [--axes area classes layers queries]

Stock Deformable DETR with random weights, one property changed at a time, each size in a child
process of its own. Prints JSON: per axis its sizes, CPU seconds and extra peak memory (MB over what
the child held when it began) of capture, export with conversion, compilation, loading and one run of
the integers, and the exponent of each by least squares; for queries also the operations whose
elements grow faster than they do. Exponents of all but the capture are expected to be at most 1.1,
over queries 2.
"""
import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
import torch._dynamo  # noqa: F401  (what a first capture imports is no growth)
from detector_setup import CONFIG, build, calibrated, noise
from machine_facts import machine

from mmdet_bpu import apis
from mmdet_bpu.compiler.compile import compile_program
from mmdet_bpu.engine.artifact_detector import quantize_image
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.program.program import Program
from mmdet_bpu.quantization import quantized_graphs

SHAPE = (192, 256)  # px, where the area is not what grows
LAYERS = {'model.encoder.num_layers': 2, 'model.decoder.num_layers': 2}
"""Where their number is not what grows."""
RUNS = 3
BOUNDED = ('export', 'compile', 'load', 'integer run')
LEAST_MB = 1.0  # less than an allocator's page is no measurement


class Axis(NamedTuple):
    """What grows.

    Attributes:
        sizes (tuple): Values of the property.
        detector (Callable): Size -> (shape, overrides of the config).
        bound (float): Largest exponent that is expected.
    """
    sizes: Tuple[int, ...]
    detector: Callable[[int], Tuple[Sequence[int], Dict[str, Any]]]
    bound: float = 1.1


def _layers(count: int) -> Tuple[Sequence[int], Dict[str, Any]]:
    return SHAPE, {'model.encoder.num_layers': count, 'model.decoder.num_layers': count}


AXES = {
    'area': Axis((1, 2, 4, 8), lambda times: (  # of 160 x 208 px, sides in multiples of 16
        [16 * round(side * times**0.5 / 16) for side in (160, 208)], LAYERS)),
    'classes': Axis((80, 320, 1280), lambda count: (SHAPE, {
        **LAYERS, 'model.bbox_head.num_classes': count})),
    'layers': Axis((1, 2, 4, 8), _layers),
    'queries': Axis((100, 200, 400, 800), lambda count: (SHAPE, {
        **LAYERS, 'model.num_queries': count}), 2.0),
}


class Meter:
    """CPU seconds and extra peak memory of the steps of one process."""

    def __init__(self) -> None:
        self.seconds: Dict[str, float] = {}
        self.peak_mb: Dict[str, float] = {}

    def measure(self, name: str, step: Callable[[], Any], runs: int = 1) -> Any:
        """Result of ``step``; of several runs the shortest counts."""
        before, seconds = _status('VmRSS'), []
        Path('/proc/self/clear_refs').write_text('5')  # the high-water mark begins anew
        for _ in range(runs):
            began = time.process_time()
            result = step()
            seconds.append(time.process_time() - began)
        self.seconds[name] = round(min(seconds), 3)
        self.peak_mb[name] = round(max(_status('VmHWM') - before, 0) / 1e3, 1)
        return result


def _status(field: str) -> float:
    """A memory size of this process, kB."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f'{field}:'))


def measured(axis: str, size: int, config: str, threads: int) -> Dict[str, Any]:
    """All steps for one detector; runs in a process of its own."""
    torch.set_num_threads(threads)
    shape, options = AXES[axis].detector(size)
    cfg, model = build(config, shape, options=options)
    meter = Meter()
    meter.measure('capture and observe', lambda: calibrated(cfg, model.eval()))
    exported = meter.measure('export', lambda: apis.to_integers(
        quantized_graphs(model), apis.metadata_of(cfg, model)))
    program = program_from_module(exported.integer)
    with tempfile.TemporaryDirectory() as folder:
        meter.measure('compile', lambda: compile_program(
            program, Path(folder) / 'model.hbm', cfg.bpu.march, exported.report))
    integers = meter.measure('load', lambda: Interpreter(program))
    spec = integers.inputs[0]
    quantized = {spec.name: quantize_image(noise(model, 1, shape)[0], spec.scale)}
    meter.measure('integer run', lambda: integers.run(quantized), RUNS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return dict(seconds=meter.seconds, peak_mb=dict(meter.peak_mb, process=round(peak, 1)),
                pixels=shape[0] * shape[1], elements=elements(program))


def elements(program: Program) -> Dict[str, int]:
    """Operation with its site -> elements that it makes."""
    return {f'{each.op} at {each.site}': sum(
        int(np.prod(program.values[name].type.shape)) for name in each.outputs)
        for each in program.instructions}


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log value over log size, by least squares."""
    return round(float(np.polyfit(np.log(sizes), np.log(values), 1)[0]), 2)


def faster_than_linear(sizes: Sequence[float], found: List[Dict[str, int]]) -> Dict[str, Any]:
    """Operations whose elements grow with an exponent over 1.5: number, modules, share."""
    first, last = found[0], found[-1]
    names = [name for name in last if name in first and exponent(
        (sizes[0], sizes[-1]), (first[name], last[name])) > 1.5]
    modules = sorted({name.partition(' at ')[2].partition('/')[0] for name in names})
    return dict(operations=len(names), modules=modules,
                share_of_elements=[round(sum(each[name] for name in names) / sum(each.values()), 3)
                                   for each in found])


def grown(axis: str, points: List[Dict[str, Any]]) -> Dict[str, Any]:
    """What the points of an axis say together."""
    sizes = [point['pixels'] for point in points] if axis == 'area' else list(AXES[axis].sizes)
    table = {kind: {step: [point[kind][step] for point in points] for step in points[0][kind]}
             for kind in ('seconds', 'peak_mb')}
    exponents = {kind: {step: exponent(sizes, np.maximum(values, LEAST_MB if kind == 'peak_mb'
                                                         else 1e-3))
                        for step, values in steps.items()} for kind, steps in table.items()}
    largest = max(steps[step] for steps in exponents.values() for step in BOUNDED)
    result = dict(sizes=sizes, **table, exponents=exponents, largest_exponent=largest,
                  bound=AXES[axis].bound, within=largest <= AXES[axis].bound)
    if axis == 'queries':
        result['quadratic'] = faster_than_linear(sizes, [point['elements'] for point in points])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=str(CONFIG))
    parser.add_argument('--axes', nargs='+', choices=list(AXES), default=list(AXES))
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--processes', type=int, default=2, help='sizes measured at once')
    args = parser.parse_args()
    # Forks of a process that has computed nothing yet: what is imported is shared.
    context = multiprocessing.get_context('fork')
    result = dict(machine=machine(), config=Path(args.config).name, threads=args.threads)
    with context.Pool(args.processes, maxtasksperchild=1) as pool:
        for axis in args.axes:
            result[axis] = grown(axis, pool.starmap(measured, [
                (axis, size, args.config, args.threads) for size in AXES[axis].sizes], 1))
    result['within'] = all(result[axis]['within'] for axis in args.axes)
    print(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
