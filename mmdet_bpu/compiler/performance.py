"""Estimate of latency and DDR traffic, layer by layer.

    seconds(layer) = MAC slots x (2 if int16) / MAC rate + vector bytes / vector rate
                     + DDR bytes / DDR rate
    latency        = overhead + outputs x overhead of an output + sum over layers

Terms are added and do not overlap, so that the layers' estimates add up to the model's. What the
units are asked for is in :mod:`mmdet_bpu.compiler.unit_work`, DDR bytes in
:mod:`mmdet_bpu.compiler.on_chip`, rates in :mod:`mmdet_bpu.compiler.march`. How far it is from
published latencies is in ``docs/hbm.md``.
"""
from mmdet_bpu.compiler.estimate import Estimate, LayerEstimate
from mmdet_bpu.compiler.march import March, get_march
from mmdet_bpu.compiler.on_chip import traffic
from mmdet_bpu.compiler.unit_work import work_of
from mmdet_bpu.program.memory_plan import MemoryPlan
from mmdet_bpu.program.program import Instruction, Program


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
    moved = traffic(program, order, int(march.sram_bytes.value))
    sizes = {name: value.type.nbytes for name, value in program.values.items()}
    return Estimate(
        march=march,
        layers=[_layer(program, program.instructions[index], read, written, march)
                for index, read, written in zip(order, moved.read, moved.written)],
        outputs=len(program.outputs),
        input_bytes=sum(sizes[name] for name in program.inputs),
        output_bytes=sum(sizes[name] for name in program.outputs),
        constant_bytes=sum(sizes[name] for name, value in program.values.items()
                           if value.data is not None),
        arena_bytes=plan.arena_bytes)


def _layer(program: Program, instruction: Instruction, read: int, written: int,
           march: March) -> LayerEstimate:
    work = work_of(program, instruction)
    slots = work.slots * (march.int16_slowdown.value if work.int16 else 1.0)
    out = program.values[instruction.outputs[0]].type
    constants = sum(program.values[name].type.nbytes for name in dict.fromkeys(instruction.inputs)
                    if program.values[name].data is not None)
    return LayerEstimate(
        site=instruction.site, op=instruction.op, shape=tuple(out.shape), dtype=out.dtype,
        unit=work.unit, macs=work.macs, filled=work.filled, int16=work.int16,
        constant_bytes=min(constants, read), bytes_read=read, bytes_written=written,
        compute_cycles=slots / march.int8_macs_per_cycle.value
        + work.vector_bytes / march.vector_bytes_per_cycle.value,
        ddr_cycles=(read + written) / march.ddr_bytes_per_cycle.value)
