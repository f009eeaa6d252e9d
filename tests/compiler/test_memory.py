"""Memory plans: no two live values share a byte, and the arena stays near the least possible."""
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_bpu.program.memory_plan import ALIGNMENT, verify_plan
from mmdet_bpu.compiler.memory import plan_memory
from mmdet_bpu.compiler.schedule import schedule
from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.program import Instruction, Program, TensorType, Value


def random_program(sizes, reads, inputs=1):
    """Instruction i makes value i and reads earlier values as ``reads`` tells."""
    values, names, instructions = {}, [], []
    for index, size in enumerate(sizes):
        name = f't{index}'
        values[name] = Value(name, TensorType((size,), 'si8', 1.0), None)
        if index >= inputs:
            sources = sorted({names[pick % index] for pick in reads[index]})
            instructions.append(Instruction('bpu.concat', sources, [name], {}, f'op.{index}'))
        names.append(name)
    return Program(values, names[:inputs], names[-1:], instructions, {})


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 25).flatmap(lambda count: st.tuples(
    st.lists(st.integers(1, 5000), min_size=count, max_size=count),
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=3),
             min_size=count, max_size=count))))
def test_no_two_live_values_share_a_byte(case):
    program = random_program(*case)
    order = schedule(program)
    plan = plan_memory(program, order)
    verify_plan(program, order, plan)
    assert plan.peak_live_bytes <= plan.arena_bytes
    assert plan.arena_bytes <= sum(-(-size // ALIGNMENT) * ALIGNMENT for size in case[0])


def test_a_chain_reuses_two_buffers():
    program = random_program([640] * 10, [[index - 1] for index in range(10)])
    plan = plan_memory(program, list(range(9)))
    assert plan.arena_bytes == plan.peak_live_bytes == 2 * 640


def test_offsets_are_aligned(detector):
    plan = plan_memory(detector, schedule(detector))
    assert all(buffer.offset % ALIGNMENT == 0 for buffer in plan.buffers.values())


def test_the_check_names_two_values_that_overlap(detector):
    order = schedule(detector)
    plan = plan_memory(detector, order)
    first, second = detector.outputs
    moved = replace(plan.buffers[second], offset=plan.buffers[first].offset)
    broken = replace(plan, buffers={**plan.buffers, second: moved})
    with pytest.raises(BpuError, match='overlap at step'):
        verify_plan(detector, order, broken)


def test_the_check_sees_an_output_that_overwrites_what_its_own_instruction_reads(maker):
    x = maker.input('x', (64,))
    program = maker.finish(maker.op('relu', [x], (64,)))
    plan = plan_memory(program, [0])
    broken = replace(plan, buffers={name: replace(buffer, offset=0)
                                    for name, buffer in plan.buffers.items()})
    with pytest.raises(BpuError, match='overlap'):
        verify_plan(program, [0], broken)


def test_the_check_names_a_buffer_that_leaves_the_arena(detector):
    plan = plan_memory(detector, schedule(detector))
    with pytest.raises(BpuError, match='behind the arena'):
        verify_plan(detector, schedule(detector), replace(plan, arena_bytes=64))
