"""Fused groups on a planned arena: a wrong plan changes what the fast kernels give, too."""
import json

import pytest
import torch

from mmdet_bpu.compiler.compile import write_hbm
from mmdet_bpu.executors import HbmSimulator, Interpreter
from mmdet_bpu.executors.arena_order import ArenaOrder
from mmdet_bpu.kernels.fusion import FusedGroup
from mmdet_bpu.program.container import canonical_json, seal, unseal
from mmdet_bpu.program.memory_plan import Buffer, MemoryPlan
from mmdet_bpu.program.program import Instruction, Program, TensorType, Value
from tests.executors.test_simulator import FIELDS

SHAPE = (1, 8, 16)
SAME = dict(multiplier=[2**14], shift=[14])


def chain() -> Program:
    """x -> first -> second -> joined, which reads x again."""
    kind = TensorType(SHAPE, 'si8', 0.5)
    values = {name: Value(name, kind) for name in ('x', 'first', 'second', 'joined')}
    sides = {f'{side}_{key}': value for side in ('lhs', 'rhs') for key, value in SAME.items()}
    return Program(values, ['x'], ['joined'], [
        Instruction('bpu.requantize', ['x'], ['first'],
                    dict(multiplier=[20000], shift=[15], relu=False), 'a'),
        Instruction('bpu.relu', ['first'], ['second'], {}, 'b'),
        Instruction('bpu.add', ['second', 'x'], ['joined'], dict(**sides, guard_bits=0, relu=False),
                    'c')])


@pytest.fixture
def data(tmp_path) -> bytes:
    write_hbm(chain(), tmp_path / 'model.hbm', 'nash-e')
    return (tmp_path / 'model.hbm').read_bytes()


def changed(data: bytes, section: str, change) -> bytes:
    header, sections = unseal(data)
    content = json.loads(sections[section])
    change(content['networks'][0])
    return seal({key: header[key] for key in FIELDS},
                {**sections, section: canonical_json(content)})


def run(data: bytes, kernels: str) -> torch.Tensor:
    x = torch.arange(128, dtype=torch.int32).sub(64).to(torch.int8).view(SHAPE)
    return HbmSimulator(data, kernels).run({'x': x})['joined']


def test_a_chain_is_fused_on_the_arena_and_equal(data):
    simulator = HbmSimulator(data, 'fast')
    assert sum(simulator.kernel_counts['fast'].values()) == 3
    assert len(simulator.networks[0]._work) == 1
    x = torch.arange(128, dtype=torch.int32).sub(64).to(torch.int8).view(SHAPE)
    expected = Interpreter(chain()).run({'x': x})['joined']
    assert torch.equal(run(data, 'fast'), expected) and torch.equal(run(data, 'reference'), expected)


@pytest.mark.parametrize('value, over', [('first', 'x'), ('joined', 'x'), ('second', 'x')])
def test_a_wrong_offset_gives_both_sets_the_same_wrong_outputs(data, value, over):
    def overlap(network):
        buffers = network['buffers']
        buffers[value]['offset'] = buffers[over]['offset']

    broken = changed(data, 'memory', overlap)
    found = run(broken, 'fast')
    assert torch.equal(found, run(broken, 'reference'))
    if value != 'joined':  # written when nothing reads x any more
        assert not torch.equal(found, run(data, 'fast'))


def test_instructions_in_a_wrong_order_are_not_put_right_by_fusing(data):
    def swap(network):
        network['instructions'][:2] = network['instructions'][1::-1]

    broken = changed(data, 'program', swap)
    found = run(broken, 'fast')
    assert torch.equal(found, run(broken, 'reference'))
    assert not torch.equal(found, run(data, 'fast'))


def test_an_input_whose_bytes_others_get_is_copied_when_its_first_reader_runs():
    kind = TensorType((64, ), 'si8', 0.5)
    program = Program({name: Value(name, kind) for name in 'xyabc'}, ['x', 'y'], ['b', 'c'], [
        Instruction('bpu.relu', ['x'], ['a'], {}),
        Instruction('bpu.relu', ['y'], ['c'], {}),
        Instruction('bpu.relu', ['a'], ['b'], {})])
    places = dict(x=0, y=64, a=128, c=0, b=192)  # c lies where x was
    plan = MemoryPlan(256, 256, {name: Buffer(offset, 64, 0, 2)
                                 for name, offset in places.items()})
    order = ArenaOrder(program, plan)
    group = FusedGroup((0, 2), ('x', ), ('b', ), lambda inputs, outputs: None)
    assert order.allows(group) and order.saved_inputs(group.members, group.inputs) == {'x': 0}
    assert order.overlap('c', 'x') and not order.overlap('c', 'y')
