"""What a camera gives, as a network's inputs."""
import copy

import cv2
import numpy as np
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.camera import (Nv12Frame, as_picture, as_yuv444, check_frame_size,
                                      nv12_frame, planes_of)
from mmdet_bpu.runtime.camera_frame import plane_types
from mmdet_bpu.runtime.contract import _check_input as check_input
from mmdet_bpu.runtime.input_stage import int8_image, network_inputs
from mmdet_bpu.runtime.input_words import input_words
from mmdet_bpu.runtime.picture_frame import place

FULL = dict(format='nv12', range='full', matrix='bt601')
STRETCH = dict(height=64, width=96, keep_ratio=False, interpolation='bilinear', multiple=2)
LETTERBOX = dict(STRETCH, keep_ratio=True, corner='center', pad_value=[16.0, 120.0, 140.0])


def contract(camera=FULL, resize=STRETCH, order='rgb', by='network'):
    channels = 1 if order == 'gray' else 3
    inputs = [dict(name=name, dtype=dtype, shape=list(shape), scale=None) for name, dtype, shape in
              plane_types(camera['format'], resize['height'], resize['width'])]
    if by == 'host':
        inputs = [dict(name='image', dtype='si8', scale=0.02, shape=[
            1, resize['height'], resize['width'], channels])]
    return dict(inputs=inputs, preprocessing=dict(
        resize=dict(resize), camera=dict(camera, by=by), color_order=order,
        mean=[123.675, 116.28, 103.53][:channels], std=[58.395, 57.12, 57.375][:channels]))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def frame(height, width):
    return Nv12Frame(noise(height, width), noise(height // 2, width // 2, 2, seed=1))


def test_a_frame_is_read_as_cameras_write_it():
    content = bytes(range(24)) + bytes(range(100, 112))
    read = nv12_frame(content, 6, 4)
    assert (read.width, read.height) == (6, 4)
    assert read.y[1].tolist() == [6, 7, 8, 9, 10, 11]
    assert read.uv[1, 2].tolist() == [110, 111]


@pytest.mark.parametrize('size, words', [
    ((7, 4), 'found 7x4; the next that are even: 6x4 and 8x4'),
    ((6, 5), 'the next that are even: 6x4 and 6x6'),
    ((1, 1), 'the next that are even: 2x2'), ((0, 4), 'even width and height')])
def test_odd_sizes_are_named_with_the_next_that_are_even(size, words):
    with pytest.raises(BpuError, match=words):
        check_frame_size(*size)


@pytest.mark.parametrize('count, words', [
    (35, 'expected 36 bytes for 6x4 .*found 35;'), (0, 'found 0;'), (37, 'found 37;'),
    (72, r'found 72 \(2 frames\? cut it into files of one each\)')])
def test_a_file_of_another_length_is_named(count, words):
    with pytest.raises(BpuError, match=words):
        nv12_frame(bytes(count), 6, 4)


def test_chroma_is_the_mean_of_four_and_an_odd_edge_counts_twice():
    picture = noise(3, 5, 3)
    luma, chroma = planes_of(picture, FULL)
    whole = cv2.cvtColor(picture, cv2.COLOR_BGR2YCrCb)
    assert luma.shape == (3, 5, 1) and chroma.shape == (2, 3, 2)
    assert np.abs(luma[..., 0].astype(int) - whole[..., 0]).max() <= 1
    u = whole[..., 2].astype(int)
    assert abs(int(chroma[0, 0, 0]) - u[:2, :2].mean()) <= 1.5
    assert abs(int(chroma[1, 2, 0]) - u[2, 4]) <= 1


def test_chroma_stands_for_two_by_two_px():
    given = frame(4, 6)
    whole = as_yuv444([given.y[..., None], given.uv])
    assert whole.shape == (4, 6, 3)
    for y, x in ((0, 0), (1, 1), (3, 4), (2, 5)):
        assert whole[y, x].tolist() == [given.y[y, x], *given.uv[y // 2, x // 2]]


@pytest.mark.parametrize('resize', [STRETCH, LETTERBOX])
@pytest.mark.parametrize('source', [noise(91, 131, 3), noise(200, 31, 3), frame(48, 130)],
                         ids=['odd', 'narrow', 'frame'])
def test_planes_are_sized_and_placed_alike(resize, source):
    stated = contract(resize=resize)
    given = network_inputs(source, stated)
    luma, chroma = given['image_y'], given['image_uv']
    assert luma.shape == (1, 64, 96, 1) and chroma.shape == (1, 32, 48, 2)
    assert luma.dtype == chroma.dtype == np.uint8
    shape = source.y.shape if isinstance(source, Nv12Frame) else source.shape
    placed = place(resize, shape[1], shape[0])
    assert all(side % 2 == 0 for side in placed)
    if resize is LETTERBOX:
        outside = np.ones((64, 96), bool)
        outside[placed.top:placed.top + placed.height, placed.left:placed.left + placed.width] = False
        assert outside.any() and (luma[0, outside] == 16).all()
        assert (chroma[0, outside[::2, ::2]] == [120, 140]).all()


def test_a_frame_of_the_input_s_size_goes_in_as_it_is():
    given = frame(64, 96)
    inputs = network_inputs(given, contract())
    assert np.array_equal(inputs['image_y'][0, ..., 0], given.y)
    assert np.array_equal(inputs['image_uv'][0], given.uv)
    gray = network_inputs(given, contract(dict(FULL, format='gray'), order='gray'))
    assert list(gray) == ['image_y'] and np.array_equal(gray['image_y'][0, ..., 0], given.y)
    centred = network_inputs(given, contract(dict(FULL, format='yuv444'), order='yuv'))['image']
    assert centred.dtype == np.int8
    assert np.array_equal(centred[0].astype(int) + 128, as_yuv444([given.y[..., None], given.uv]))


def test_a_host_that_converts_rounds_what_the_picture_looks_like():
    given, stated = frame(64, 96), contract(by='host')
    rgb = as_picture(planes_of(given, FULL), FULL)[..., ::-1]
    stage = stated['preprocessing']
    real = (np.float32(rgb) - np.float32(stage['mean'])) / np.float32(stage['std'])
    expected = np.clip(np.rint(real / np.float32(0.02)), -128, 127)
    assert np.array_equal(int8_image(given, stated)[0], expected)
    assert list(network_inputs(given, stated)) == ['image']


def test_a_frame_for_a_network_of_pictures_is_refused():
    stated = contract(by='host')
    del stated['preprocessing']['camera']
    with pytest.raises(BpuError, match='an NV12 frame: expected a network whose input format'):
        network_inputs(frame(64, 96), stated)


@pytest.mark.parametrize('picture', [noise(5, 5, 4), noise(5, 5, 3).astype(float), 'x'])
def test_what_is_neither_a_frame_nor_a_picture_is_refused(picture):
    with pytest.raises(BpuError, match='picture: expected a picture as a uint8 array'):
        network_inputs(picture, contract())


@pytest.mark.parametrize('order, camera, by', [
    ('rgb', FULL, 'network'), ('yuv', FULL, 'network'), ('bgr', dict(FULL, range='video'), 'host'),
    ('gray', dict(FULL, format='gray'), 'network'), ('yuv', dict(FULL, format='yuv444'), 'network')])
def test_a_whole_contract_passes(order, camera, by):
    check_input(contract(camera, order=order, by=by))


@pytest.mark.parametrize('change, words', [
    (lambda c: c['preprocessing']['camera'].update(format='nv21'), "camera.format: expected 'nv12'"),
    (lambda c: c['preprocessing']['camera'].update(range=[]), 'camera.range'),
    (lambda c: c['preprocessing']['camera'].pop('matrix'), 'camera: expected matrix'),
    (lambda c: c['preprocessing'].update(camera=3), 'camera: expected a table'),
    (lambda c: c['preprocessing'].update(color_order='gray'), 'color_order: expected rgb or bgr'),
    (lambda c: c['preprocessing'].update(mean=[1]), 'mean: expected a list of 3 numbers'),
    (lambda c: c['preprocessing']['resize'].update(height=63), 'a height, a width and a multiple'),
    (lambda c: c['preprocessing']['resize'].update(multiple=1), 'a height, a width and a multiple'),
    (lambda c: c['preprocessing']['resize'].update(interpolation='nearest'), 'interpolation'),
    (lambda c: c['inputs'].pop(), 'inputs: expected .* of a camera that gives nv12'),
    (lambda c: c['inputs'][0].update(dtype='si8'), 'inputs: expected'),
    (lambda c: c['preprocessing']['camera'].update(by='host'), 'expected one int8 image')])
def test_a_part_that_does_not_fit_is_named(change, words):
    stated = copy.deepcopy(contract())
    change(stated)
    with pytest.raises(BpuError, match=words):
        check_input(stated)


def test_the_input_stage_in_words():
    assert input_words(contract(dict(FULL, range='video', matrix='bt709'))['preprocessing']) == (
        'NV12 frames, video range BT.709, stretched to 64 x 96 px by the host plane by plane, '
        'converted to RGB and normalised inside the network')
    pictures = contract(by='host')['preprocessing']
    del pictures['camera']
    assert input_words(pictures) == 'rgb pictures, stretched to 64 x 96 px by the host, normalised by the host'
    assert input_words({}) == ''
