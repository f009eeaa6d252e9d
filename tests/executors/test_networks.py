"""A ``.hbm`` and an executable hold a list of networks, of which most detectors have one."""
import json

import numpy as np
import pytest
import torch

from mmdet_bpu.compiler.compile import compile_network, hbm_bytes
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors import Executable, HbmSimulator, Interpreter, Network
from mmdet_bpu.program.container import canonical_json, seal, unseal
from tests.integer_programs import ProgramMaker

WEIGHT = np.arange(-32, 32, dtype=np.int8).reshape(8, 8)
CONTRACT = {'classes': ['left', 'right']}


def layer(name, rows, multiplier=16384):
    """A linear layer of :data:`WEIGHT` over ``rows`` rows."""
    maker = ProgramMaker()
    x = maker.input(name, (rows, 8))
    rate = dict(multiplier=np.array([multiplier]), shift=np.array([20]), relu=False)
    return maker.finish(
        maker.op('linear', [x, maker.constant(WEIGHT), maker.constant(np.zeros(8, np.int32))],
                 (rows, 8), **rate), metadata=CONTRACT)


@pytest.fixture
def programs():
    """What the host interrupts: proposals, then the heads of 5 of them."""
    return {'proposals': layer('image', 7), 'heads': layer('regions', 5, 20000)}


@pytest.fixture
def data(programs):
    return hbm_bytes([compile_network(program, 'nash-e', name)[0]
                      for name, program in programs.items()], 'nash-e')


def rows(count):
    return torch.randint(-128, 128, (count, 8), generator=torch.Generator().manual_seed(count)
                         ).to(torch.int8)


def test_two_networks_in_one_file_run_each_by_its_name(programs, data):
    simulator = HbmSimulator(data)
    assert [network.name for network in simulator.networks] == ['proposals', 'heads']
    for name, program in programs.items():
        inputs = {program.inputs[0]: rows(program.values[program.inputs[0]].type.shape[0])}
        outputs = simulator.network(name).run(inputs)
        expected = Interpreter(program).run(inputs)
        assert torch.equal(outputs[program.outputs[0]], expected[program.outputs[0]])
        assert len(torch.unique(outputs[program.outputs[0]])) > 5
    assert simulator.metadata == CONTRACT
    assert simulator.kernel_counts == {'reference': {'bpu.linear': 2}}


def test_several_networks_are_never_run_as_if_they_were_one(data):
    simulator = HbmSimulator(data)
    with pytest.raises(BpuError, match="networks 'proposals', 'heads', between which the host"):
        simulator.run({'image': rows(7)})
    with pytest.raises(BpuError, match="no network 'masks'.*expected one of 'proposals', 'heads'"):
        simulator.network('masks')


def test_the_header_names_them_and_shared_weights_are_stored_once(data):
    header, sections = unseal(data)
    assert header['networks'] == ['proposals', 'heads']
    assert sections['weights'].count(WEIGHT.tobytes()) == 1


def test_only_one_network_answers_for_the_executable():
    simulator = HbmSimulator(hbm_bytes([compile_network(layer('image', 7), 'nash-e')[0]],
                                       'nash-e'))
    assert [network.name for network in simulator.networks] == ['forward']
    assert simulator.inputs == simulator.networks[0].inputs
    assert set(simulator.run({'image': rows(7)})) == {spec.name for spec in simulator.outputs}


def test_executors_keep_the_protocol(data):
    interpreter, simulator = Interpreter(layer('image', 7)), HbmSimulator(data)
    assert isinstance(interpreter, Executable) and isinstance(interpreter, Network)
    assert interpreter.networks == [interpreter] and interpreter.name == 'forward'
    assert all(isinstance(network, Network) for network in simulator.networks)
    members = set(Executable.__annotations__) | {'run'}
    assert members <= set(dir(simulator)) | set(vars(simulator))
    assert not isinstance(simulator.networks[0], Executable)


@pytest.mark.parametrize('section, change, message', [
    ('program', lambda networks: networks[1].update(name='proposals'), "section 'program'"),
    ('program', lambda networks: networks.clear(), "section 'program'"),
    ('memory', lambda networks: networks.pop(), "section 'memory'.*1 networks, expected 2"),
    ('performance', lambda networks: networks.pop(), "section 'performance'.*1 networks"),
])
def test_sections_that_disagree_are_refused(data, section, change, message):
    header, sections = unseal(data)
    content = json.loads(sections[section])
    change(content['networks'])
    altered = seal({'march': 'nash-e'}, {**sections, section: canonical_json(content)})
    with pytest.raises(BpuError, match=message):
        HbmSimulator(altered)
