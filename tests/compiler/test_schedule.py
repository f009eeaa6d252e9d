"""Orders: always topological, never above the program's own peak."""
import pytest

from mmdet_bpu.compiler.schedule import (is_topological, lifetimes, live_bytes, peak_live_bytes,
                                         schedule)
from mmdet_bpu.errors import BpuError


def test_lifetimes_run_from_producer_to_last_reader_and_outputs_to_the_end(maker):
    x = maker.input('x', (4,))
    first = maker.op('relu', [x], (4,))
    second = maker.op('relu', [first], (4,))
    third = maker.op('add', [first, second], (4,))
    program = maker.finish(second, third)
    assert lifetimes(program, [0, 1, 2]) == {
        'x': (0, 0), first: (0, 2), second: (1, 2), third: (2, 2)}
    assert live_bytes(program, [0, 1, 2]) == [8, 8, 12]


def test_a_program_without_instructions_has_no_step(maker):
    program = maker.finish(maker.input('x', (4,)))
    assert live_bytes(program, []) == [] and peak_live_bytes(program, []) == 0


def test_constants_are_not_activations(maker):
    out = maker.conv(maker.input('x', (1, 4, 4, 2)), 2)
    assert set(lifetimes(maker.finish(out), [0])) == {'x', out}


def test_wide_branches_are_finished_one_after_the_other(maker):
    """Four branches widen and narrow again; one at a time needs one wide tensor."""
    x = maker.input('x', (10,))
    wide = [maker.op('tile', [x], (1000,)) for _ in range(4)]
    narrow = [maker.op('reduce_max', [branch], (1,)) for branch in wide]
    program = maker.finish(maker.op('concat', narrow, (4,)))
    own = list(range(len(program.instructions)))
    order = schedule(program)
    assert is_topological(program, order)
    assert peak_live_bytes(program, own) > 4000
    assert peak_live_bytes(program, order) < 1100


def test_an_order_that_is_already_best_is_kept(detector):
    assert schedule(detector) == list(range(len(detector.instructions)))


def test_a_program_out_of_order_is_put_in_order(maker):
    x = maker.input('x', (4,))
    first = maker.op('relu', [x], (4,))
    out = maker.op('relu', [first], (4,))
    maker.instructions.reverse()
    program = maker.finish(out)
    assert not is_topological(program, [0, 1])
    assert schedule(program) == [1, 0]


def test_a_value_without_producer_is_named_with_its_reader(maker):
    x = maker.input('x', (4,))
    ghost = maker._value('ghost', (4,), 'si8')
    program = maker.finish(maker.op('add', [x, ghost], (4,), site='neck/add.0'))
    with pytest.raises(BpuError, match='neck/add.0 reads ghost'):
        schedule(program)


def test_a_cycle_is_refused(maker):
    x = maker.input('x', (4,))
    first = maker.op('add', [x, 'v_loop'], (4,))
    maker._value('v_loop', (4,), 'si8')
    maker.op('relu', [first], (4,))
    maker.instructions[1].outputs[0] = 'v_loop'
    with pytest.raises(BpuError, match='cycle'):
        schedule(maker.finish(first))
