"""The registry: one kernel per op of the dialect, and plans that can be prepared."""
import pytest
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.bpu_dialect import BPU_OPS
from mmdet_bpu.kernels.registry import CARRIED, KERNELS, PREPARE, prepare_attrs
from mmdet_bpu.program.numerics import Operand


def test_every_op_of_the_dialect_but_constant_has_a_kernel():
    assert set(KERNELS) == set(BPU_OPS) - {'bpu.constant'}
    assert set(CARRIED) < set(PREPARE) < set(KERNELS)


def test_preparing_leaves_the_given_attributes_as_they_are():
    attrs = dict(multiplier=[2**14], shift=[14], out_dtypes=['si16'])
    prepared = prepare_attrs('bpu.mul', [Operand('si8', (2,))] * 2, attrs)
    assert 'plan' not in attrs and 'plan' in prepared


def test_an_op_without_a_plan_keeps_its_attributes():
    attrs = dict(dims=[1], out_dtypes=['si8'])
    assert prepare_attrs('bpu.reduce_max', [Operand('si8', (2, 3))], attrs) is attrs


def test_an_unknown_op_is_named():
    with pytest.raises(BpuError, match="no integer kernel for 'bpu.softmax'"):
        prepare_attrs('bpu.softmax', [], {})


def test_operands_describe_tensors():
    tensor = torch.zeros(2, 3, dtype=torch.int16)
    assert Operand.of(tensor) == Operand('si16', (2, 3), None)
    assert Operand.of(tensor, True).constant is tensor
