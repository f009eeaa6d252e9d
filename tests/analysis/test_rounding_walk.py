"""Float and quantized network side by side, against each of them run alone."""
import pytest
import torch

from mmdet_bpu.analysis.rounding_walk import RoundingWalk, grid_of
from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.hbir.reference import FloatReference
from mmdet_bpu.hbir.types import tensor_type


def channels_last(image):
    return image.permute(0, 2, 3, 1).contiguous()


def one_layer(weight, scale=0.1):
    """image -> fake quantizer -> linear without bias -> fake quantizer."""
    b = OpBuilder([('image', tensor_type((1, 1, 2, 3), 'f32'))])
    x = b.fake_quant(b.inputs[0], bits=8, scale=scale, site='image')
    w = b.fake_quant(b.constant(weight.numpy(), site='fc/linear.0'), 8, scale, site='fc/linear.0')
    y = b.op('hbir.linear', [x, w, None], {}, tensor_type((1, 1, 2, len(weight)), 'f32'),
             site='fc/linear.0')
    return b.finish([('out', b.fake_quant(y, bits=8, scale=0.5, site='fc/linear.0'))])


def test_both_sides_are_what_each_gives_alone(small_detector):
    small = small_detector('refine')
    image = channels_last(small.image)
    walk = RoundingWalk(small.hbir)
    floats, quantized = walk.run(image, lambda *seen: None)
    assert not walk.selects
    for outputs, quantize in ((quantized, True), (floats, False)):
        alone = FloatReference(small.hbir, quantize).run({'image': image})
        assert all(torch.equal(outputs[name], alone[name]) for name in alone)


def test_behind_a_top_k_the_float_model_has_the_rows_that_the_quantized_one_chose(small_detector):
    small = small_detector('refine-twostage')
    image = channels_last(small.image)
    walk = RoundingWalk(small.hbir)
    floats, quantized = walk.run(image, lambda *seen: None)
    alone = FloatReference(small.hbir, False).run({'image': image})
    assert walk.selects
    assert all(torch.equal(walk.floats(image)[name], alone[name]) for name in alone)

    def distance(outputs):
        return (outputs['bbox_preds'] - quantized['bbox_preds']).abs().max().item()

    assert distance(floats) < distance(alone) / 2


def test_each_rounding_is_told_what_was_given_what_came_and_what_is_right():
    weight = torch.tensor([[0.26, 0.0, 0.0], [0.0, 0.34, 0.0]])
    walk = RoundingWalk(one_layer(weight))
    image = torch.tensor([[[[1.04, 2.0, 3.0], [100.0, -1.0, 0.0]]]])
    told = []
    floats, quantized = walk.run(image, lambda *seen: told.append(seen))
    assert [number for number, *_ in told] == [0, 1] == list(range(len(walk.roundings)))
    _, reference, given, rounded = told[0]
    assert torch.equal(reference, image) and torch.equal(given, image)
    torch.testing.assert_close(rounded, torch.tensor([[[[1.0, 2.0, 3.0], [12.7, -1.0, 0.0]]]]))
    _, reference, given, rounded = told[1]
    torch.testing.assert_close(reference, torch.tensor([[[[0.2704, 0.68], [26.0, -0.34]]]]))
    torch.testing.assert_close(given, torch.tensor([[[[0.3, 0.6], [3.81, -0.3]]]]))
    torch.testing.assert_close(rounded, torch.tensor([[[[0.5, 0.5], [4.0, -0.5]]]]))
    assert floats['out'] is reference and torch.equal(quantized['out'], rounded)


def test_weights_come_with_both_sides():
    weight = torch.tensor([[0.26, 0.0, 0.0], [0.0, 0.34, -20.0]])
    constant, = RoundingWalk(one_layer(weight)).constants()
    torch.testing.assert_close(constant.before, weight)
    torch.testing.assert_close(constant.after, torch.tensor([[0.3, 0, 0], [0, 0.3, -12.8]]))


def test_the_float_side_may_have_weights_of_its_own():
    weights = torch.ones(2, 3), torch.full((2, 3), 2.0)
    walk = RoundingWalk(*map(one_layer, weights))
    image = torch.ones(1, 1, 2, 3)
    floats, quantized = walk.run(image, lambda *seen: None)
    assert torch.equal(floats['out'], torch.full((1, 1, 2, 2), 6.0))
    assert torch.equal(quantized['out'], torch.full((1, 1, 2, 2), 3.0))
    assert torch.equal(walk.floats(image)['out'], floats['out'])


def test_another_network_and_an_image_of_another_shape_are_refused():
    module = one_layer(torch.ones(2, 3))
    with pytest.raises(BpuError, match='the float model is another network: at fc/linear.0'):
        RoundingWalk(module, one_layer(torch.ones(4, 3)))
    with pytest.raises(BpuError, match=r'expected \(N, H, W, C\) \(1, 1, 2, 3\), found \(1, 1, 3, 3\)'):
        RoundingWalk(module).run(torch.ones(1, 1, 3, 3), lambda *seen: None)


def test_the_grid_is_that_of_the_fake_quantizer():
    grid = grid_of(RoundingWalk(one_layer(torch.ones(2, 3))).roundings[1])
    assert (grid.scale, grid.low, grid.high) == (0.5, -128, 127)
