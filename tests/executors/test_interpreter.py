"""The interpreter: results, input checks, tracing, values freed after their last use."""
import gc
import weakref

import numpy as np
import pytest
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.program.program import TensorSpec
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.types import tensor_type

X = tensor_type((2, 3), 'si8', 0.5)


def chain(length=1, metadata=None):
    """``length`` transposes of x."""
    builder = OpBuilder([('x', X)], 'bpu')
    value, shape = builder.inputs[0], (2, 3)
    for index in range(length):
        shape = shape[::-1]
        value = builder.op('bpu.transpose', [value], dict(dims=[1, 0]),
                           tensor_type(shape, 'si8', 0.5), site=f'step.{index}')
    return builder.finish([('y', value)], metadata)


def linear_module():
    builder = OpBuilder([('x', X)], 'bpu')
    weight = builder.constant(np.array([[1, -2, 3], [4, 5, -6]], np.int8), scale=0.1)
    bias = builder.constant(np.array([100, -100], np.int32))
    out = builder.op('bpu.linear', [builder.inputs[0], weight, bias],
                     dict(multiplier=[16384], shift=[15], relu=False),
                     tensor_type((2, 2), 'si8', 0.1), site='fc')
    return builder.finish([('y', out)])


def test_a_linear_layer_gives_the_numbers_of_integer_arithmetic():
    x = torch.tensor([[1, 2, 3], [-128, 127, 127]], dtype=torch.int8)
    # Half of [1-4+9+100, 4+10-18-100] = [106, -104]; half of [-128-254+381+100, ...] saturates.
    expected = [[53, -52], [50, -128]]
    assert Interpreter(program_from_module(linear_module())).run({'x': x})['y'].tolist() == expected


def test_a_program_runs_as_its_module_does():
    x = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.int8)
    module = chain(3)
    assert torch.equal(Interpreter(program_from_module(module)).run({'x': x})['y'], x.t())


def test_it_describes_its_inputs_and_outputs():
    interpreter = Interpreter(program_from_module(chain(metadata={'colour': 'RGB'})))
    assert interpreter.inputs == [TensorSpec('x', (2, 3), 'si8', 0.5)]
    assert interpreter.outputs == [TensorSpec('y', (3, 2), 'si8', 0.5)]
    assert interpreter.metadata == {'colour': 'RGB'}


def test_trace_sees_every_instruction_with_its_inputs_and_outputs():
    x = torch.zeros(2, 3, dtype=torch.int8)
    seen = []
    Interpreter(program_from_module(chain(2))).run({'x': x}, trace=lambda step, operands, results: seen.append(
        (step.site, [tuple(t.shape) for t in operands], [tuple(t.shape) for t in results])))
    assert seen == [('step.0', [(2, 3)], [(3, 2)]), ('step.1', [(3, 2)], [(2, 3)])]


def test_values_are_freed_after_their_last_use():
    alive, counts = [], []

    def trace(step, operands, results):
        gc.collect()
        counts.append(sum(ref() is not None for ref in alive))
        alive.extend(weakref.ref(tensor) for tensor in results)

    Interpreter(program_from_module(chain(6))).run({'x': torch.zeros(2, 3, dtype=torch.int8)}, trace)
    assert max(counts) == 1


@pytest.mark.parametrize('inputs, reason', [
    ({}, r"expected the inputs \['x'\], found \[\]"),
    ({'z': torch.zeros(2, 3, dtype=torch.int8)}, r"found \['z'\]"),
    ({'x': torch.zeros(3, 2, dtype=torch.int8)}, r'shape \(2, 3\), found torch.int8 of shape'),
    ({'x': torch.zeros(2, 3)}, 'found torch.float32'),
])
def test_wrong_inputs_are_refused_with_what_was_expected(inputs, reason):
    with pytest.raises(BpuError, match=reason):
        Interpreter(program_from_module(chain())).run(inputs)


def test_an_instruction_that_can_overflow_is_refused_with_its_site():
    builder = OpBuilder([('x', tensor_type((1, 40000), 'si16', 0.5))], 'bpu')
    weight = builder.constant(np.full((1, 40000), 127, np.int8))
    bias = builder.constant(np.zeros(1, np.int32))
    out = builder.op('bpu.linear', [builder.inputs[0], weight, bias],
                     dict(multiplier=[16384], shift=[30], relu=False),
                     tensor_type((1, 1), 'si16', 0.1), site='head/fc')
    with pytest.raises(BpuError, match='head/fc'):
        Interpreter(program_from_module(builder.finish([('y', out)])))
