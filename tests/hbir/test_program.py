"""The plain program: names, types, attributes, constants, and what cannot become one."""
import json

import numpy as np
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.program.program import TensorType
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.text import parse_text, print_text
from mmdet_bpu.hbir.types import tensor_type

IMAGE = tensor_type((1, 4, 4, 3), 'si8', 0.5)
REQUANTIZE = dict(multiplier=[20000], shift=[20])


def conv_module():
    builder = OpBuilder([('image', IMAGE)], 'bpu')
    weight = builder.constant(np.arange(24, dtype=np.int8).reshape(8, 1, 1, 3),
                              scale=np.linspace(0.1, 0.2, 8), axis=0)
    bias = builder.constant(np.arange(8, dtype=np.int32))
    conv = builder.op('bpu.conv2d', [builder.inputs[0], weight, bias],
                      dict(stride=[1, 1], pad=[0] * 4, dilation=[1, 1], groups=1, relu=True,
                           **REQUANTIZE), tensor_type((1, 4, 4, 8), 'si8', 0.25), site='stem/conv')
    values, indices = builder.op(
        'bpu.topk', [conv], dict(k=2, dim=3),
        [tensor_type((1, 4, 4, 2), 'si8', 0.25), tensor_type((1, 4, 4, 2), 'si32')], site='head')
    return builder.finish([('scores', values), ('labels', indices)], metadata={'classes': ['a']})


def test_inputs_and_outputs_keep_their_names_and_values_their_types():
    program = program_from_module(conv_module())
    assert program.inputs == ['image'] and program.outputs == ['scores', 'labels']
    assert program.values['image'].type == TensorType((1, 4, 4, 3), 'si8', 0.5)
    assert program.values['labels'].type == TensorType((1, 4, 4, 2), 'si32', None)
    assert program.values['labels'].type.nbytes == 4 * 4 * 2 * 4
    assert program.metadata == {'classes': ['a']}


def test_instructions_carry_attributes_that_json_can_hold_and_their_site():
    conv, topk = program_from_module(conv_module()).instructions
    assert (conv.op, conv.site, topk.site) == ('bpu.conv2d', 'stem/conv', 'head')
    assert json.loads(json.dumps(conv.attrs)) == dict(
        stride=[1, 1], pad=[0] * 4, dilation=[1, 1], groups=1, relu=True, **REQUANTIZE)
    assert topk.outputs == ['scores', 'labels']


def test_constants_hold_their_data_and_no_single_scale_where_there_is_one_per_channel():
    program = program_from_module(conv_module())
    weight = program.values[program.instructions[0].inputs[1]]
    np.testing.assert_array_equal(weight.data, np.arange(24).reshape(8, 1, 1, 3))
    assert weight.data.dtype == np.int8 and weight.type.scale is None


def test_the_program_of_the_text_is_the_program_of_the_module():
    module = conv_module()
    one, two = program_from_module(module), program_from_module(parse_text(print_text(module)))
    assert one.instructions == two.instructions
    assert {name: value.type for name, value in one.values.items()} == {
        name: value.type for name, value in two.values.items()}


def test_an_output_that_is_an_input_or_a_constant_or_returned_twice_is_copied():
    builder = OpBuilder([('x', IMAGE)], 'bpu')
    relu = builder.op('bpu.relu', builder.inputs, {}, IMAGE)
    constant = builder.constant(np.zeros(3, np.int8))
    module = builder.finish([('same', builder.inputs[0]), ('fixed', constant), ('a', relu),
                             ('b', relu)])
    program = program_from_module(module)
    assert [(step.op, step.inputs, step.outputs) for step in program.instructions[1:]] == [
        ('bpu.reshape', ['x'], ['same']), ('bpu.reshape', ['%1'], ['fixed']),
        ('bpu.reshape', ['a'], ['b'])]


def test_a_module_of_the_fake_quantized_form_is_refused():
    type_ = tensor_type((1, 2), 'f32')
    builder = OpBuilder([('x', type_)])
    module = builder.finish([('y', builder.op('hbir.relu', builder.inputs, {}, type_))])
    with pytest.raises(BpuError, match='integer form'):
        program_from_module(module)


def test_an_unnamed_argument_is_refused():
    text = ('func.func @f(%0: tensor<2xsi8>) -> (tensor<2xsi8> {hbir.name = "y"}) {\n'
            '  return %0 : tensor<2xsi8>\n}')
    with pytest.raises(BpuError, match='hbir.name'):
        program_from_module(parse_text(text))


def test_names_that_are_given_twice_are_refused():
    builder = OpBuilder([('x', IMAGE)], 'bpu')
    with pytest.raises(BpuError, match="'x'"):
        builder.finish([('x', builder.op('bpu.relu', builder.inputs, {}, IMAGE))])
