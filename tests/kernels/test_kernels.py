"""Kernel sets: the reference computes every op; another set takes what it has a plan for."""
import sys

import pytest
import torch

import mmdet_bpu.kernels
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.bpu_dialect import BPU_OPS
from mmdet_bpu.kernels.kernel_set import SETS, KernelSet
from mmdet_bpu.kernels.registry import (KERNELS, kernel_set, kernel_set_names, plan_instruction)
from mmdet_bpu.program.numerics import Operand

MUL = dict(multiplier=[2**14], shift=[14], out_dtypes=['si16'])
IMAGE = torch.arange(768).reshape(1, 16, 16, 3).remainder(255).sub(127).to(torch.int8)
DOUBLING = '''
from mmdet_bpu.kernels.kernel_set import KernelSet, register

DOUBLING = register(KernelSet('doubling'))


def only_si8(operands, attrs):
    return 2 if operands[0].dtype == 'si8' else None


@DOUBLING.kernel('bpu.relu', only_si8)
def relu(inputs, attrs, factor):
    return [inputs[0].clamp_min(0) * factor]
'''


def test_every_op_of_the_dialect_but_constant_has_a_kernel():
    assert set(KERNELS) == set(BPU_OPS) - {'bpu.constant'}


def test_planning_leaves_the_given_attributes_as_they_are():
    attrs = dict(MUL)
    assert KERNELS['bpu.mul'].plan([Operand('si8', (2,))] * 2, attrs).plan is not None
    assert attrs == MUL


def test_an_op_whose_attributes_say_all_has_no_plan():
    attrs = dict(dims=[1], out_dtypes=['si8'])
    assert KERNELS['bpu.reduce_max'].plan([Operand('si8', (2, 3))], attrs).plan is None


def test_an_unknown_op_is_named():
    with pytest.raises(BpuError, match="no integer kernel for 'bpu.softmax'"):
        plan_instruction(kernel_set('reference'), 'bpu.softmax', [], {})


def test_an_unknown_set_is_refused_with_the_known_ones():
    with pytest.raises(BpuError, match="unknown kernel set 'quick': expected one of.* reference"):
        kernel_set('quick')


def test_operands_describe_tensors():
    tensor = torch.zeros(2, 3, dtype=torch.int16)
    assert Operand.of(tensor) == Operand('si16', (2, 3), None)
    assert Operand.of(tensor, True).constant is tensor


def test_a_machine_that_does_not_compute_exactly_is_refused_before_planning():
    def probe(device):
        raise BpuError(f'{device} rounds')

    unsafe = KernelSet('unsafe')
    unsafe.kernel('bpu.mul', lambda operands, attrs: 1, probe=probe)(
        lambda inputs, attrs, plan: inputs)
    with pytest.raises(BpuError, match='cpu rounds'):
        plan_instruction(unsafe, 'bpu.mul', [Operand('si8', (2,))] * 2, MUL)


@pytest.fixture
def doubling(tmp_path, monkeypatch):
    """Name of a kernel set that is a folder of its own, beside the reference."""
    (tmp_path / 'doubling').mkdir()
    (tmp_path / 'doubling' / '__init__.py').write_text(DOUBLING)
    monkeypatch.setattr(mmdet_bpu.kernels, '__path__',
                        [*mmdet_bpu.kernels.__path__, str(tmp_path)])
    yield 'doubling'
    SETS.pop('doubling', None)
    sys.modules.pop('mmdet_bpu.kernels.doubling', None)


def two_relus(maker):
    x = maker.input('x', (1, 4))
    wide = maker.input('wide', (1, 4), 'si16')
    return maker.finish(maker.op('relu', [x], (1, 4)), maker.op('relu', [wide], (1, 4), 'si16'),
                        maker.op('reshape', [x], (4, ), shape=[4]))


def test_a_set_is_one_folder_and_the_reference_computes_the_rest(doubling, maker):
    program = two_relus(maker)
    x = torch.tensor([[-3, 0, 5, 60]], dtype=torch.int8)
    executor = Interpreter(program, kernels=doubling)
    narrow, wide, shaped = executor.run({'x': x, 'wide': x.to(torch.int16)}).values()
    assert narrow.tolist() == [[0, 0, 10, 120]]  # by the new set
    assert wide.tolist() == [[0, 0, 5, 60]]  # its planner leaves si16 to the reference
    assert shaped.tolist() == [-3, 0, 5, 60]
    assert executor.kernel_counts == {'doubling': {'bpu.relu': 1},
                                      'reference': {'bpu.relu': 1, 'bpu.reshape': 1}}
    assert doubling in kernel_set_names()


def test_the_simulator_takes_a_kernel_set_too(doubling, maker, tmp_path):
    from mmdet_bpu.compiler.compile import write_hbm
    from mmdet_bpu.executors.simulator import HbmSimulator
    program = two_relus(maker)
    write_hbm(program, tmp_path / 'model.hbm', 'nash-e')
    simulator = HbmSimulator(tmp_path / 'model.hbm', kernels=doubling)
    x = torch.tensor([[-3, 0, 5, 60]], dtype=torch.int8)
    outputs = simulator.run({'x': x, 'wide': x.to(torch.int16)})
    assert outputs[program.outputs[0]].tolist() == [[0, 0, 10, 120]]
    assert simulator.kernel_counts['doubling'] == {'bpu.relu': 1}


def test_the_reference_computes_a_whole_program_alone(detector):
    executor = Interpreter(detector)
    assert executor.kernel_counts == {
        'reference': {'bpu.conv2d': 4, 'bpu.reshape': 1, 'bpu.linear': 2}}
    assert executor.run({'image': IMAGE})[detector.outputs[0]].unique().numel() > 50


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_the_reference_computes_the_same_integers_on_cuda(detector):
    expected = Interpreter(detector).run({'image': IMAGE})
    found = Interpreter(detector, device='cuda').run({'image': IMAGE})
    for name, integers in expected.items():
        assert found[name].is_cuda and torch.equal(found[name].cpu(), integers)
