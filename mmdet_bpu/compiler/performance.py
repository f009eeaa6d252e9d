"""Estimate of latency and DDR traffic, layer by layer: a roofline calibrated on published models.

    seconds(layer) = compute cycles / clock + DDR bytes / DDR rate
    latency        = overhead + sum over layers

What is fitted, scaled or assumed is in :mod:`mmdet_bpu.compiler.march`; against the eight
published ``nash-e`` latencies, with their published traffic, the formula is off by -16 % to
+21 %, and by -23 % to +27 % for a model left out of the fit. Our own counts of traffic and
operations come on top, so read the result as an estimate.
"""
from math import prod

from mmdet_bpu.compiler.march import NOMINAL_CLOCK_HZ, get_march
from mmdet_bpu.program.memory_plan import MemoryPlan
from mmdet_bpu.compiler.on_chip import FREE_OPS, spilled_values
from mmdet_bpu.version import __version__

# Input channels that one step of a MAC array reduces; fewer leave lanes idle. Assumed.
CHANNEL_LANES = 16
CONVOLUTIONS = ('bpu.conv2d', 'bpu.conv_transpose2d')
ESTIMATE_NOTE = ('Estimate by a roofline fitted to published latencies, not a measurement on a '
                 'board. A published model left out of the fit is predicted within -23 % to +27 %.')


def count_macs(program, instruction) -> int:
    """Multiply-accumulates of an instruction; 0 for all but products."""
    shapes = [program.values[name].type.shape for name in instruction.inputs]
    out = program.values[instruction.outputs[0]].type.shape
    if instruction.op == 'bpu.conv2d':
        return prod(out) * prod(shapes[1][1:])
    if instruction.op == 'bpu.conv_transpose2d':  # every pixel meets every weight of its group once
        channels, *window, _ = shapes[1]
        return prod(shapes[0]) * prod(window) * channels // instruction.attrs['groups']
    if instruction.op in ('bpu.linear', 'bpu.matmul'):
        return prod(out) * shapes[0][-1]
    return 0


def _compute_cycles(program, instruction, macs: int, march) -> float:
    values = [program.values[name] for name in instruction.inputs]
    if macs:
        depth = values[1].type.shape[-1] if instruction.op in CONVOLUTIONS else (
            values[0].type.shape[-1])
        filled = -(-depth // CHANNEL_LANES) * CHANNEL_LANES
        slowdown = march.int16_slowdown.value if any(
            value.type.dtype == 'si16' for value in values[:2]) else 1.0
        return macs * (filled / depth) * slowdown / march.int8_macs_per_cycle.value
    if instruction.op in FREE_OPS:
        return 0.0
    moved = sum(program.values[name].type.nbytes
                for name in [*instruction.inputs, *instruction.outputs])
    return moved / march.vector_bytes_per_cycle.value


def estimate_performance(program, order: list[int], plan: MemoryPlan, march_name: str) -> dict:
    """Estimate one inference on one core.

    Args:
        program (Program): Integer program.
        order (list[int]): Schedule.
        plan (MemoryPlan): Memory plan of that schedule.
        march_name (str): March.

    Returns:
        dict: 'summary' with the vendor's fields 'performance', 'DDR access data', 'layer details'
        and 'model info', 'march' with every figure and its origin, 'note'.

    Raises:
        BpuError: Unknown march.
    """
    march = get_march(march_name)
    in_ddr = spilled_values(program, order, plan, int(march.sram_bytes.value))
    layers = []
    for index in order:
        instruction = program.instructions[index]
        layers.append(_layer(program, instruction, in_ddr, march))
    overhead_us = march.overhead_s.value * 1e6
    latency_us = overhead_us + sum(layer['time (us)'] for layer in layers)
    clock_us = overhead_us
    for layer in layers:
        layer['start (us)'] = round(clock_us, 3)
        layer['share'] = round(layer['time (us)'] / latency_us, 5)
        clock_us += layer['time (us)']
        layer['time (us)'] = round(layer['time (us)'], 3)
    loaded = sum(layer['bytes read'] for layer in layers)
    stored = sum(layer['bytes written'] for layer in layers)
    constants = sum(value.type.nbytes for value in program.values.values()
                    if value.data is not None)
    sizes = {name: value.type.nbytes for name, value in program.values.items()}
    summary = {
        'performance': {
            'FPS': round(1e6 / latency_us, 2),
            'latency (us)': round(latency_us, 1),
            'latency (ms)': round(latency_us / 1e3, 3),
            'fixed overhead (us)': round(overhead_us, 1),
        },
        'DDR access data': {
            'DDR megabytes per run': round((loaded + stored) / 1e6, 3),
            'loaded bytes per run': loaded,
            'stored bytes per run': stored,
            'input memory': sum(sizes[name] for name in program.inputs),
            'output memory': sum(sizes[name] for name in program.outputs),
            'static memory': constants,
            'dynamic memory': plan.arena_bytes,
            'min memory requirement': constants + plan.arena_bytes,
        },
        'layer details': layers,
        'model info': {
            'BPU march': march.name,
            'BPU core number': 1,
            'compiling version': f'mmdet_bpu {__version__}',
            'original conv ops': 2 * sum(layer['macs'] for layer in layers),
            'instructions': len(layers),
        },
    }
    return {'summary': summary, 'march': _figures(march), 'note': ESTIMATE_NOTE}


def _layer(program, instruction, in_ddr: set[str], march) -> dict:
    macs = count_macs(program, instruction)
    free = instruction.op in FREE_OPS
    read = 0 if free else sum(
        program.values[name].type.nbytes for name in dict.fromkeys(instruction.inputs)
        if name in in_ddr or program.values[name].data is not None)
    written = 0 if free else sum(program.values[name].type.nbytes
                                 for name in instruction.outputs if name in in_ddr)
    compute = _compute_cycles(program, instruction, macs, march)
    ddr = (read + written) / march.ddr_bytes_per_cycle.value
    out = program.values[instruction.outputs[0]].type
    return {
        'layer name': instruction.site,
        'op': instruction.op,
        'output': f'{"x".join(map(str, out.shape))} {out.dtype}',
        'macs': macs,
        'origin ops': 2 * macs,
        'bytes read': read,
        'bytes written': written,
        'compute cycles': round(compute),
        'DDR cycles': round(ddr),
        'bound by': 'nothing' if not compute + ddr else 'compute' if compute >= ddr else 'DDR',
        'time (us)': (compute + ddr) / NOMINAL_CLOCK_HZ * 1e6,
    }


def _figures(march) -> dict:
    fields = ('overhead_s', 'int8_macs_per_cycle', 'int16_slowdown', 'vector_bytes_per_cycle',
              'ddr_bytes_per_cycle', 'sram_bytes')
    figures = {name: vars(getattr(march, name)) for name in fields}
    return {'name': march.name, 'boards': list(march.boards), 'limits of': march.limits_of,
            'note': march.note, 'nominal clock (Hz)': NOMINAL_CLOCK_HZ, 'figures': figures}
