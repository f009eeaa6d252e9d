"""What another runtime is compared with: the QAT model at its roundings, and with products in float64."""
import numpy as np
import pytest
import torch
from torch import nn

from mmdet_bpu.analysis.node_differences import (SPAN, NodeComparison, NodeDifference,
                                                 OutputDifference)
from mmdet_bpu.analysis.qat_roundings import QatRoundings, compare
from mmdet_bpu.quantization import prepare, quantized_graphs
from tests.stock_detectors import TOY_IMAGE, TOY_SHAPE


def test_differences_are_counted_in_lsb():
    node = NodeDifference('site', 'int8')
    node.add(np.array([1, 5, 7, -3]), np.array([1, 4, 9, -3]))
    node.add(np.array([0]), np.array([1]))
    assert (node.elements, node.differing, node.beyond, node.largest) == (5, 3, 1, 2)


def test_an_output_differs_beyond_a_part_of_its_largest_magnitude():
    output = OutputDifference()
    output.add(np.array([SPAN, 1.5, 3, -1]), np.array([SPAN, 3, 3.5, -1]))
    assert (output.elements, output.differing) == (4, 1)
    assert output.largest == pytest.approx(1.5 / SPAN)


def test_shares_are_those_of_a_dtype_and_outputs_count_whatever_they_are():
    nodes = {'a': NodeDifference('a', 'int8', 100, 10, 4), 'b': NodeDifference('b', 'int16', 50, 5, 0)}
    found = NodeComparison(nodes, {'boxes': OutputDifference(50, 20, 0.25)}, ['b'])
    assert (found.within('int8'), found.within('int16')) == (0.96, 1)
    assert (found.differing('int8'), found.differing('int16')) == (0.1, 0.1)
    assert found.largest_output() == 0.25
    assert found.differing_outputs() == 0.25  # (20 + 5) of 100


def test_what_was_not_compared_neither_agrees_nor_differs():
    found = NodeComparison({})
    assert (found.within('int8'), found.differing('int8'), found.elements('int8')) == (1, 0, 0)


@pytest.fixture
def qat(toy, calibrated):
    """A convolution, and a linear layer whose result is not rounded."""
    torch.manual_seed(1)
    model = toy(lambda d, image: d.last(d.first(image).relu().flatten(2).transpose(1, 2)),
                first=nn.Conv2d(3, 4, 3, padding=1), last=nn.Linear(4, 5))
    network, = quantized_graphs(calibrated(prepare(model, dict(input_shape=TOY_SHAPE)), TOY_IMAGE))
    return QatRoundings(network)


def rounded(x, scale):
    return np.clip(np.rint(np.float32(x) / np.float32(scale)), -128, 127)


def test_products_in_float64_are_those_of_exact_integers(qat):
    """Integers times scales, summed exactly, by numpy alone."""
    roundings = qat.of(TOY_IMAGE)
    scales, graph = qat.network.scales, qat.network.graph
    conv, linear = (next(op for op in graph.ops if op.kind == kind) for kind in ('conv2d', 'linear'))
    image, after = list(roundings.integers)[0], list(roundings.integers)[1]

    def weight(op):
        data = graph.values[op.inputs[1]].data.numpy()
        scale = np.float32(scales.weights[op.output][1]).reshape(-1, *[1] * (data.ndim - 1))
        return np.rint(data / scale), scale.astype(np.float64)

    bias = [graph.values[op.inputs[2]].data.numpy().astype(np.float64) for op in (conv, linear)]
    integers, scale = weight(conv)
    padded = np.pad(roundings.integers[image].astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    sums = np.einsum('nchwyx,ocyx->nohw', windows, integers.astype(np.int64))
    result = sums * scale.reshape(1, -1, 1, 1) * np.float32(scales.own[image][1]) \
        + bias[0].reshape(1, -1, 1, 1)
    expected = rounded(np.maximum(result, 0), scales.own[after][1])
    found, outputs = qat.fed(roundings)
    assert np.abs(found[after] - expected).max() <= 1
    assert np.mean(found[after] != expected) < 1e-3
    integers, scale = weight(linear)
    tokens = roundings.real[after].reshape(1, 4, -1).transpose(0, 2, 1).astype(np.float64)
    result = tokens @ (integers * scale).T + bias[1]
    np.testing.assert_allclose(next(iter(outputs.values())), result, rtol=1e-6, atol=1e-6)


def test_from_the_image_on_the_first_rounding_is_the_same_and_all_are_there(qat):
    found = compare(dict(fed=qat.fed, alone=qat.alone), qat, [TOY_IMAGE, TOY_IMAGE * 2])
    for comparison in found.values():
        nodes = list(comparison.nodes.values())
        assert nodes[0].differing == 0 and nodes[0].elements == 2 * TOY_IMAGE.numel()
        assert comparison.within('int8') == 1 and len(comparison.outputs) == 1
    assert found['fed'].largest_output() <= 1e-6


def test_a_runtime_that_is_off_is_found_out(qat):

    def off(roundings):
        integers, outputs = qat.fed(roundings)
        return ({value: array + 2 for value, array in integers.items()},
                {name: array * 1.01 for name, array in outputs.items()})

    found = compare(dict(off=off), qat, [TOY_IMAGE])['off']
    assert found.within('int8') == 0 and found.largest_output() == pytest.approx(0.01, rel=1e-3)
