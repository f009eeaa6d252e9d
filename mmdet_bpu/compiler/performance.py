"""Estimate of latency and DDR traffic, layer by layer: a roofline calibrated on published models.

    seconds(layer) = compute cycles / clock + DDR bytes / DDR rate
    latency        = overhead + sum over layers

What is fitted, scaled or assumed is in :mod:`mmdet_bpu.compiler.march`; against the eight
published ``nash-e`` latencies, with their published traffic, the formula is off by -16 % to
+21 %, and by -23 % to +27 % for a model left out of the fit. Our own counts of traffic and
operations come on top, so read the result as an estimate.
"""
from math import prod

from mmdet_bpu.compiler.estimate import Estimate, LayerEstimate
from mmdet_bpu.compiler.march import March, get_march
from mmdet_bpu.compiler.on_chip import FREE_OPS, spilled_values
from mmdet_bpu.program.memory_plan import MemoryPlan
from mmdet_bpu.program.program import Instruction, Program

COST_MODEL_VERSION = 1
"""Raised whenever an estimate of the same program may come out otherwise."""

# Input channels that one step of a MAC array reduces; fewer leave lanes idle. Assumed.
CHANNEL_LANES = 16
CONVOLUTIONS = ('bpu.conv2d', 'bpu.conv_transpose2d', 'bpu.deform_conv2d')


def count_macs(program: Program, instruction: Instruction) -> int:
    """Multiply-accumulates of an instruction's product; 0 for all but products."""
    shapes = [program.values[name].type.shape for name in instruction.inputs]
    out = program.values[instruction.outputs[0]].type.shape
    if instruction.op == 'bpu.conv_transpose2d':  # every pixel meets every weight of its group once
        channels, *window, _ = shapes[1]
        return prod(shapes[0]) * prod(window) * channels // instruction.attrs['groups']
    if instruction.op in CONVOLUTIONS:
        return prod(out) * prod(shapes[1][1:])
    if instruction.op in ('bpu.linear', 'bpu.matmul'):
        return prod(out) * shapes[0][-1]
    return 0


def _compute_cycles(program: Program, instruction: Instruction, macs: int,
                    march: March) -> float:
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


def estimate_performance(program: Program, order: list[int], plan: MemoryPlan,
                         march_name: str) -> Estimate:
    """Estimate one inference on one core.

    Args:
        program (Program): Integer program.
        order (list[int]): Schedule.
        plan (MemoryPlan): Memory plan of that schedule.
        march_name (str): March.

    Returns:
        Estimate: Layers in the order they run.

    Raises:
        BpuError: Unknown march.
    """
    march = get_march(march_name)
    in_ddr = spilled_values(program, order, plan, int(march.sram_bytes.value))
    sizes = {name: value.type.nbytes for name, value in program.values.items()}
    return Estimate(
        march=march,
        layers=[_layer(program, program.instructions[index], in_ddr, march) for index in order],
        input_bytes=sum(sizes[name] for name in program.inputs),
        output_bytes=sum(sizes[name] for name in program.outputs),
        constant_bytes=sum(sizes[name] for name, value in program.values.items()
                           if value.data is not None),
        arena_bytes=plan.arena_bytes)


def _layer(program: Program, instruction: Instruction, in_ddr: set[str],
           march: March) -> LayerEstimate:
    macs = count_macs(program, instruction)
    free = instruction.op in FREE_OPS
    read = 0 if free else sum(
        program.values[name].type.nbytes for name in dict.fromkeys(instruction.inputs)
        if name in in_ddr or program.values[name].data is not None)
    written = 0 if free else sum(program.values[name].type.nbytes
                                 for name in instruction.outputs if name in in_ddr)
    out = program.values[instruction.outputs[0]].type
    return LayerEstimate(
        site=instruction.site, op=instruction.op, shape=tuple(out.shape), dtype=out.dtype,
        macs=macs, bytes_read=read, bytes_written=written,
        compute_cycles=_compute_cycles(program, instruction, macs, march),
        ddr_cycles=(read + written) / march.ddr_bytes_per_cycle.value)
