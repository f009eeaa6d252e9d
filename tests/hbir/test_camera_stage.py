"""The head of a network that a camera feeds, in the integer form and as the vendor writes it."""
import json

import numpy as np
import pytest
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.builder import OpBuilder, find_function, operations
from mmdet_bpu.hbir.camera_stage import insert_vendor_stage, stage_of
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import conversion_of
from mmdet_bpu.hbir.reference import FloatReference
from mmdet_bpu.hbir.text import parse_text, print_text
from mmdet_bpu.hbir.types import tensor_type
from mmdet_bpu.lowering.artifacts import IntegerModel, write_export
from mmdet_bpu.runtime.camera_frame import plane_types
from mmdet_bpu.runtime.input_stage import int8_image, network_inputs

SHAPE = 4, 6
MEAN, STD, SCALE = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], 0.0204


def network(channels=3):
    """A fake-quantized image, handed on as it is."""
    image = tensor_type((1, *SHAPE, channels), 'f32')
    builder = OpBuilder([('image', image)])
    rounded = builder.fake_quant(builder.inputs[0], 8, SCALE, site='image')
    tall = tensor_type((1, *SHAPE[::-1], channels), 'f32')
    moved = builder.op('hbir.transpose', [rounded], dict(dims=[0, 2, 1, 3]), tall, site='moved')
    return builder.finish([('y', moved)])


def metadata(kind='nv12', levels='full', matrix='bt601', order='rgb', by='network'):
    channels = 1 if order == 'gray' else 3
    mean, std = ([128.0] * 3, [128.0] * 3) if order == 'yuv' else (MEAN, STD)
    return dict(preprocessing=dict(
        resize=dict(height=SHAPE[0], width=SHAPE[1], keep_ratio=False, interpolation='bilinear'),
        camera=dict(format=kind, range=levels, matrix=matrix, by=by), color_order=order,
        mean=mean[:channels], std=std[:channels]))


def picture(channels=3):
    return np.random.default_rng(0).integers(0, 256, (*SHAPE, channels), dtype=np.uint8)


def fed(stated, kind):
    inputs = [dict(name=name) for name, *_ in plane_types(kind, *SHAPE)]
    return {name: torch.from_numpy(value.copy()) for name, value in
            network_inputs(picture(), dict(stated, inputs=inputs)).items()}


FORMS = [('nv12', 'full', 'bt601', 'rgb'), ('nv12', 'video', 'bt601', 'bgr'),
         ('nv12', 'video', 'bt709', 'yuv'), ('yuv444', 'full', 'bt601', 'rgb'),
         ('gray', 'video', 'bt601', 'gray'), ('gray', 'full', 'bt601', 'gray')]


@pytest.mark.parametrize('kind, levels, matrix, order', [*FORMS, ('nv12', 'full', 'bt709', 'rgb')])
def test_the_integers_are_those_of_a_host_that_converts(kind, levels, matrix, order):
    stated = metadata(kind, levels, matrix, order)
    made = conversion_of(network(1 if order == 'gray' else 3), stated).result
    assert print_text(parse_text(print_text(made))) == print_text(made)
    names = [op.name for op in operations(made)]
    assert names[-2:] == ['bpu.image_preprocess', 'bpu.transpose']
    assert (names[0] == 'bpu.image_convert') == (kind != 'yuv444')
    found = Interpreter(program_from_module(made)).run(fed(stated, kind))['y']
    host = metadata(kind, levels, matrix, order, by='host')
    expected = int8_image(picture(), dict(host, inputs=[dict(name='image', scale=SCALE)]))
    assert np.array_equal(found.numpy(), expected.transpose(0, 2, 1, 3))


@pytest.mark.parametrize('kind, levels, matrix, order', FORMS)
def test_the_vendor_s_forms_mean_the_same(kind, levels, matrix, order):
    stated = metadata(kind, levels, matrix, order)
    core = network(1 if order == 'gray' else 3)
    before = print_text(core)
    text = print_text(insert_vendor_stage(core, stage_of(stated)))
    assert print_text(core) == before and print_text(parse_text(text)) == text
    inputs = fed(stated, kind)
    real = FloatReference(parse_text(text)).run(inputs)['y']
    integers = Interpreter(program_from_module(conversion_of(core, stated).result)).run(inputs)['y']
    # Video range of a gray camera is part of the mean there, and is not cut to 8 bits.
    assert (real / np.float32(SCALE) - integers).abs().max() <= (1.01 if order == 'gray' else 1e-3)


def test_the_text_is_the_vendor_s():
    text = print_text(insert_vendor_stage(network(), stage_of(metadata(levels='video'))))
    assert ('@forward(%image_y: tensor<1x4x6x1xui8> {hbir.id = 1 : i64, hbir.name = "image_y"}, '
            '%image_uv: tensor<1x2x3x2xui8> {hbir.id = 2 : i64, hbir.name = "image_uv"}) -> '
            '(tensor<1x6x4x3xf32> {hbir.id = -1 : i64, hbir.name = "y"})') in text
    assert ('"hbir.image_convert"(%image_y, %image_uv) <{mode = #hbdk<ImageConvertMode NV12>}> : '
            '(tensor<1x4x6x1xui8>, tensor<1x2x3x2xui8>) -> tensor<1x4x6x3xsi8>') in text
    assert ('<{csc = #hbdk<CSCMode YUVBT601VIDEO2RGB>, divisor = 1 : i64, '
            'mean = [123.675 : f32, 116.28 : f32, 103.53 : f32], '
            'sd = [58.395 : f32, 57.12 : f32, 57.375 : f32]}>') in text
    yuv = print_text(insert_vendor_stage(network(), stage_of(metadata('yuv444', order='yuv'))))
    assert '%image: tensor<1x4x6x3xsi8>' in yuv and 'image_convert' not in yuv
    assert 'csc = #hbdk<CSCMode NONE>, divisor = 1 : i64, mean = [0.0 : f32, ' in yuv


def test_bt709_has_no_form_there():
    with pytest.raises(BpuError, match="input_format.matrix: expected 'bt601' for HBIR.*'bt709'"):
        insert_vendor_stage(network(), stage_of(metadata(matrix='bt709')))


def test_a_host_that_converts_leaves_the_image():
    stated = metadata(by='host')
    assert stage_of(stated) is None and stage_of({}) is None
    function = find_function(conversion_of(network(), stated).result)
    assert len(function.body.block.args) == 1


def line(text, old, new):
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize('old, new, words', [
    ('ImageConvertMode NV12', 'ImageConvertMode NV21', 'mode is one of NV12, GRAY, found NV21'),
    ('ImageConvertMode NV12', 'ImageConvertMode GRAY', 'mode GRAY: operands have shapes'),
    ('YUVBT601FULL2RGB', 'YUVBT709FULL2RGB', 'csc is NONE or one of .*found YUVBT709FULL2RGB'),
    ('divisor = 1', 'divisor = 0', 'divisor and sd are above 0'),
    ('sd = [58.395', 'sd = [-58.395', 'divisor and sd are above 0'),
    ('mean = [123.675 : f32, ', 'mean = [', 'mean has 2 values, expected 3'),
    ('123.675 : f32', '123.675 : f64', 'a list of finite f32'),
    ('tensor<1x4x6x3xsi8>', 'tensor<1x4x6x2xsi8>', 'the result has shape'),
    ('tensor<1x2x3x2xui8>', 'tensor<1x2x3x2xsi8>', 'expected a tensor of ui8'),
    ('tensor<1x2x3x2xui8>', 'tensor<1x3x3x2xui8>', 'operands have shapes'),
    ('divisor = 1 : i64, ', '', 'divisor')])
def test_a_text_that_says_something_else_is_refused(old, new, words):
    text = print_text(insert_vendor_stage(network(), stage_of(metadata())))
    with pytest.raises(BpuError, match=words):
        parse_text(line(text, old, new), 'm.mlir')


def test_an_export_without_a_form_leaves_the_text_out_and_says_so(tmp_path):
    core, stated = network(), metadata(matrix='bt709')
    integer = conversion_of(core, stated).result
    write_export(IntegerModel([], core, integer, [], []), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['model.int.mlir', 'model.quant.json']
    note, = json.loads((tmp_path / 'model.quant.json').read_text())['notes']
    assert (note['site'], note['rule']) == ('camera', 'write_export')
    assert "expected 'bt601' for HBIR" in note['text']
    stated = metadata()
    write_export(IntegerModel([], core, conversion_of(core, stated).result, [], []), tmp_path / 'b')
    assert 'hbir.image_convert' in (tmp_path / 'b' / 'model.hbir.mlir').read_text()
