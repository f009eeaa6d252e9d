"""Every operation of the vector machine on every input that it can have, or on its extremes."""
import pytest
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.kernels.fast.vector_ops import VECTOR_OPS
from tests.integer_programs import ProgramMaker
from tests.kernels.fast.chain_programs import TABLES

BYTES = torch.arange(-128, 128).to(torch.int8)
WORDS = torch.arange(-2**15, 2**15).to(torch.int16)
ENDS = torch.tensor([-2**15, -2**15 + 1, -257, -1, 0, 1, 2, 255, 2**15 - 2, 2**15 - 1],
                    dtype=torch.int16)
SIDES = dict(lhs_multiplier=[32767], lhs_shift=[7], rhs_multiplier=[24577], rhs_shift=[9],
             guard_bits=8)
BINARY = {
    'add': dict(SIDES, relu=False), 'sub': dict(SIDES, relu=True),
    'mul': dict(multiplier=[16385], shift=[29]), 'max': {}, 'min': {}}
UNARY = {
    'requantize': dict(multiplier=[24577], shift=[16], relu=False), 'relu': {}, 'positive': {},
    'not_negative': {}}


def both(program, inputs):
    """Results of the reference and of the fast set, which computes all of the instructions."""
    fast = Interpreter(program, kernels='fast')
    assert list(fast.kernel_counts) == ['fast']
    return Interpreter(program).run(inputs), fast.run(inputs)


@pytest.mark.parametrize('values', [BYTES, ENDS], ids=['all pairs of si8', 'ends of si16'])
@pytest.mark.parametrize('op', BINARY)
def test_two_operands(op, values):
    maker, dtype = ProgramMaker(), {torch.int8: 'si8', torch.int16: 'si16'}[values.dtype]
    size = len(values)
    names = maker.input('a', (size, 1), dtype), maker.input('b', (1, size), dtype)
    for left, right in (names, names[::-1]):
        maker.op(op, [left, right], (size, size), dtype, **BINARY[op])
    results = [each.outputs[0] for each in maker.instructions]
    expected, found = both(maker.finish(*results),
                           {'a': values[:, None].clone(), 'b': values[None].clone()})
    assert all(torch.equal(expected[name], found[name]) for name in results)


@pytest.mark.parametrize('values', [BYTES, WORDS], ids=['all si8', 'all si16'])
@pytest.mark.parametrize('op', [*UNARY, 'table'])
def test_one_operand(op, values):
    maker, dtype = ProgramMaker(), {torch.int8: 'si8', torch.int16: 'si16'}[values.dtype]
    x = maker.input('x', values.shape, dtype)
    given = {'relu': [dtype], 'positive': ['i1'], 'not_negative': ['i1']}.get(op, ['si8', 'si16'])
    for target in given:
        attrs = TABLES[dtype, target].attrs if op == 'table' else UNARY[op]
        maker.op(op, [x], values.shape, target, **attrs)
    results = [each.outputs[0] for each in maker.instructions]
    expected, found = both(maker.finish(*results), {'x': values})
    assert all(torch.equal(expected[name], found[name]) for name in results)


@pytest.mark.parametrize('value', [-2**15, 2**15 - 1])
def test_the_longest_sum_of_extremes(value):
    maker = ProgramMaker()
    x = maker.input('x', (2, 5, 13107), 'si16')  # 65,535 of them fill an int32
    rows = maker.op('reduce_sum', [x], (2, 1, 1), 'si16', dims=[1, 2], multiplier=[32767],
                    shift=[31])
    columns = maker.op('reduce_sum', [x], (1, 1, 13107), 'si16', dims=[0, 1],
                       multiplier=[32767], shift=[20])
    expected, found = both(maker.finish(rows, columns),
                           {'x': torch.full((2, 5, 13107), value, dtype=torch.int16)})
    assert torch.equal(expected[columns], found[columns])
    # The contract in plain integers: half to even, saturated.
    total = round(65535 * value * 32767 / 2**31)
    assert found[rows].flatten().tolist() == [min(max(total, -2**15), 2**15 - 1)] * 2


def test_what_the_contract_excludes_is_refused_in_the_same_words():
    maker = ProgramMaker()
    x = maker.input('x', (4, 70000), 'si16')
    result = maker.op('reduce_sum', [x], (4, 1), 'si16', dims=[1], multiplier=[16384], shift=[20])
    program, messages = maker.finish(result), []
    for kernels in ('reference', 'fast'):
        with pytest.raises(BpuError) as error:
            Interpreter(program, kernels=kernels)
        messages.append(str(error.value))
    assert messages[0] == messages[1] and 'write it in two steps' in messages[0]


def test_every_operation_is_tested_here_or_in_chains():
    tested = {*BINARY, *UNARY, 'table', 'reduce_sum', 'where', 'reshape', 'reduce_max',
              'reduce_min'}
    assert {f'bpu.{op}' for op in tested} == set(VECTOR_OPS)
