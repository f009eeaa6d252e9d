"""bpu.image_convert and bpu.image_preprocess against plain Python integers."""
import numpy as np
import pytest
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.program.numerics import Operand
from mmdet_bpu.runtime.camera import decoding

ENDS = [0, 1, 15, 16, 127, 128, 129, 235, 240, 255]


def run(name, inputs, **attrs):
    attrs = dict(attrs, out_dtypes=['si8'])
    planned = KERNELS[name].plan([Operand.of(each) for each in inputs], attrs)
    result, = planned(inputs)
    return result


def test_planes_become_one_picture_less_128():
    y = torch.tensor([[0, 255, 128, 7], [1, 2, 3, 4]], dtype=torch.uint8).view(1, 2, 4, 1)
    uv = torch.tensor([[0, 255], [127, 129]], dtype=torch.uint8).view(1, 1, 2, 2)
    result = run('bpu.image_convert', [y, uv])
    assert result.dtype == torch.int8
    assert result[0, 0].tolist() == [[-128, -128, 127], [127, -128, 127], [0, -1, 1], [-121, -1, 1]]
    assert result[0, 1, 3].tolist() == [-124, -1, 1]
    assert run('bpu.image_convert', [y]).flatten().tolist() == [
        -128, 127, 0, -121, -127, -126, -125, -124]


@pytest.mark.parametrize('levels, matrix, order', [
    ('full', 'bt601', 'rgb'), ('video', 'bt601', 'bgr'), ('video', 'bt709', 'rgb'),
    ('full', 'bt601', 'yuv'), ('video', 'bt601', 'gray')])
def test_colors_are_those_of_the_host_s_conversion(levels, matrix, order):
    conversion = decoding(dict(range=levels, matrix=matrix), order)
    channels = len(conversion.matrix)
    bytes_ = np.array(np.meshgrid(*[ENDS] * channels), np.uint8).reshape(channels, -1).T
    image = torch.from_numpy((bytes_ ^ 0x80).view(np.int8)).view(1, 1, -1, channels)
    table = np.random.default_rng(0).integers(-128, 128, (channels, 256))
    found = run('bpu.image_preprocess', [image], matrix=np.ravel(conversion.matrix),
                offset=conversion.offset, low=conversion.low, shift=conversion.shift,
                levels=table.ravel())
    values = conversion.apply(bytes_)
    for channel in range(channels):
        assert np.array_equal(found[0, 0, :, channel].numpy(), table[channel][values[:, channel]])


def test_sums_round_down_and_are_cut_to_a_byte():
    image = torch.tensor([-128, -5, -4, 127], dtype=torch.int8).view(1, 1, 4, 1)
    attrs = dict(matrix=[3], offset=[10], low=[-100], shift=2,
                 levels=[index // 2 for index in range(256)])
    expected = [max((3 * max(x, -100) + 10) >> 2, 0) // 2 for x in (-128, -5, -4, 127)]
    assert run('bpu.image_preprocess', [image], **attrs).flatten().tolist() == expected


def test_sums_beyond_int32_are_refused():
    image = torch.zeros(1, 1, 1, 1, dtype=torch.int8)
    with pytest.raises(BpuError, match='which int32 does not hold'):
        run('bpu.image_preprocess', [image], matrix=[1 << 24], offset=[1], low=[0], shift=0,
            levels=[0] * 256)
