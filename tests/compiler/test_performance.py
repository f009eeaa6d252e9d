"""The estimate: operations, traffic and time, against counts made by hand and published figures."""
from pathlib import Path

import numpy as np
import pytest

from mmdet_bpu.compiler.march import NOMINAL_CLOCK_HZ, get_march
from mmdet_bpu.compiler.memory import plan_memory
from mmdet_bpu.compiler.estimate import COST_MODEL_VERSION
from mmdet_bpu.compiler.performance import estimate_performance
from mmdet_bpu.compiler.published import PUBLISHED_NASH_E
from mmdet_bpu.compiler.schedule import schedule
from mmdet_bpu.compiler.unit_work import count_macs
from mmdet_bpu.program.hbm_file import read_hbm


def estimate(program, march='nash-e'):
    order = schedule(program)
    return estimate_performance(program, order, plan_memory(program, order), march)


def test_macs_of_each_product_op(maker):
    image = maker.input('image', (1, 10, 12, 3))
    maker.conv(image, 5)
    maker.op('conv2d', [image, maker.integers((6, 3, 3, 1)), maker.integers((6,), 'int32')],
             (1, 10, 12, 6), groups=3)
    maker.op('conv_transpose2d', [image, maker.integers((6, 4, 4, 1)),
                                  maker.integers((6,), 'int32')], (1, 20, 24, 6), groups=3)
    maker.op('matmul', [maker.input('a', (2, 7, 11)), maker.input('b', (2, 11, 13))], (2, 7, 13))
    maker.op('deform_conv2d', [image, maker.integers((6, 3, 3, 1)), maker.integers((6,), 'int32'),
                               maker.input('offset', (1, 10, 12, 18), 'si16')],
             (1, 10, 12, 6), groups=3)
    maker.op('relu', [image], (1, 10, 12, 3))
    program = maker.finish()
    assert [count_macs(program, instruction) for instruction in program.instructions] == [
        10 * 12 * 5 * 9 * 3, 10 * 12 * 6 * 9, 10 * 12 * 3 * 16 * 2, 2 * 7 * 11 * 13,
        10 * 12 * 6 * 9, 0]


def test_layers_add_up_to_the_latency(detector):
    result = estimate(detector)
    total = (result.march.overhead_s.value + len(detector.outputs) * result.march.output_s.value) \
        * 1e6 + sum(layer.time_us for layer in result.layers)
    assert result.latency_us == pytest.approx(total)
    assert result.latency_ms == pytest.approx(total / 1e3)
    assert result.images_per_second == pytest.approx(1e6 / total)
    assert sum(result.share(layer) for layer in result.layers) == pytest.approx(
        1 - result.overhead_us / total)
    assert sum(row.time_us for row in result.by_op()) == pytest.approx(total - result.overhead_us)
    assert {row.op: row.count for row in result.by_op()} == {
        'bpu.linear': 2, 'bpu.conv2d': 4, 'bpu.reshape': 1}
    times = [row.time_us for row in result.by_op()]
    assert times == sorted(times, reverse=True)


def test_int16_activations_cost_more_than_int8_ones(maker):
    maker.conv(maker.input('a', (1, 64, 64, 64), 'si8'), 64)
    maker.conv(maker.input('b', (1, 64, 64, 64), 'si16'), 64)
    narrow, wide = estimate(maker.finish()).layers
    assert wide.compute_cycles == pytest.approx(2 * narrow.compute_cycles)


def test_a_residual_chain_that_fits_costs_only_input_weights_and_output(detector):
    result = estimate(detector)
    constants = sum(v.type.nbytes for v in detector.values.values() if v.data is not None)
    image = 16 * 16 * 3
    assert result.loaded_bytes == constants + image
    assert result.stored_bytes == 256 * 10 * 4 + 256 * 4 * 2
    assert result.ddr_megabytes == (result.loaded_bytes + result.stored_bytes) / 1e6
    assert (result.constant_bytes, result.input_bytes) == (constants, image)
    assert result.memory_bytes == result.constant_bytes + result.arena_bytes


def test_a_file_of_version_0_1_opens_with_its_own_estimate():
    """It was compiled by that version from the program that is in it, by cost model 1."""
    network, = read_hbm(Path(__file__).parents[1] / 'data' / 'version_0_1.hbm').networks
    now, then = (content['summary'] for content in (
        estimate(network.program).as_vendor_dict(), network.performance))
    assert now['model info'].pop('cost model version') == COST_MODEL_VERSION == 2
    for name, fields in then.items():
        if name != 'layer details':
            assert set(now[name]) == set(fields)
    for name in ('input memory', 'output memory', 'static memory', 'dynamic memory'):
        assert now['DDR access data'][name] == then['DDR access data'][name]
    for layer, older in zip(now['layer details'], then['layer details'], strict=True):
        assert set(layer) - set(older) == {'unit', 'lanes filled'} and not set(older) - set(layer)
        assert all(layer[name] == older[name] for name in ('layer name', 'op', 'output', 'macs'))


def resnet50(maker):
    """Convolutions and shortcuts of a ResNet-50 at 224 x 224, classifier included."""
    def conv(x, channels, kernel, stride=1, residual=None):
        batch, height, width, depth = maker.values[x].type.shape
        weight = maker.constant(np.broadcast_to(np.int8(1), (channels, kernel, kernel, depth)))
        inputs = [x, weight, maker.constant(np.zeros(channels, np.int32))]
        shape = (batch, height // stride, width // stride, channels)
        return maker.op('conv2d', inputs + ([residual] if residual else []), shape, groups=1)

    x = conv(maker.input('image', (1, 224, 224, 3)), 64, 7, 2)
    x = maker.op('max_pool', [x], (1, 56, 56, 64))
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            shortcut = x if block else conv(x, 4 * width, 1, stride)
            x = conv(conv(x, width, 1), width, 3, stride)
            x = conv(x, 4 * width, 1, residual=shortcut)
    x = maker.op('reduce_sum', [x], (1, 1, 1, 2048), dims=[1, 2])
    x = maker.op('reshape', [x], (1, 2048))
    return maker.finish(maker.op('linear', [
        x, maker.constant(np.broadcast_to(np.int8(1), (1000, 2048))),
        maker.constant(np.zeros(1000, np.int32))], (1, 1000), 'si32'))


def test_resnet50_comes_near_the_published_operations_traffic_and_latency(maker):
    published = next(model for model in PUBLISHED_NASH_E if model.name == 'ResNet50')
    result = estimate(resnet50(maker))
    assert 2 * result.macs / 1e9 == pytest.approx(published.gops, rel=0.07)
    assert result.loaded_bytes / 1e6 == pytest.approx(published.ddr_read_mb, rel=0.05)
    assert result.stored_bytes / 1e6 < 0.01
    assert result.latency_ms == pytest.approx(published.latency_ms, rel=0.15)


def test_a_faster_march_is_faster(maker):
    program = resnet50(maker)
    latency = {march: estimate(program, march).latency_ms
               for march in ('nash-e', 'nash-m', 'nash-p', 'nash-h', 'nash-b')}
    assert latency['nash-h'] == latency['nash-p'] < latency['nash-m'] < latency['nash-e'] \
        < latency['nash-b']
    assert get_march('nash-p').note and get_march('nash-m').note and not get_march('nash-e').note


def test_a_depthwise_product_fills_one_lane_of_sixteen(maker):
    image = maker.input('image', (1, 32, 32, 64))
    maker.conv(image, 64, 1)
    maker.op('conv2d', [image, maker.integers((64, 3, 3, 1)), maker.integers((64, ), 'int32')],
             (1, 32, 32, 64), groups=64)
    maker.op('conv2d', [image, maker.integers((64, 3, 3, 8)), maker.integers((64, ), 'int32')],
             (1, 32, 32, 64), groups=8)
    full, depthwise, grouped = estimate(maker.finish()).layers
    assert [full.filled, depthwise.filled, grouped.filled] == [1, 1 / 16, 1 / 2]
    assert depthwise.compute_cycles == pytest.approx(full.compute_cycles * 9 / 64 * 16)


def test_few_channels_leave_lanes_idle_on_both_sides(maker):
    maker.conv(maker.input('image', (1, 32, 32, 3)), 8)
    layer, = estimate(maker.finish()).layers
    assert layer.filled == pytest.approx(3 / 16 * 8 / 16)


def test_every_output_of_a_program_costs_the_host_time(maker):
    names = [maker.conv(maker.input('image', (1, 8, 8, 16)), 16)]
    alone = estimate(maker.finish(*names))
    names += [maker.conv(names[0], 16), maker.conv(names[0], 16)]
    several = estimate(maker.finish(*names))
    assert several.overhead_us - alone.overhead_us == pytest.approx(
        2e6 * alone.march.output_s.value)


def test_a_bilinear_sample_reads_four_corners(maker):
    grid = maker.input('grid', (1, 10, 10, 2), 'si16')
    maker.op('grid_sample', [maker.input('value', (1, 20, 20, 16)), grid], (1, 10, 10, 16))
    layer, = estimate(maker.finish()).layers
    assert layer.compute_cycles == pytest.approx(
        (4 * 1600 + 400) / get_march('nash-e').vector_bytes_per_cycle.value)


def test_cores_share_the_ddr(maker):
    image = maker.input('image', (1, 1000, 1000, 3))
    light = estimate(maker.finish(maker.conv(image, 16, stride=[4, 4])), 'nash-p')
    assert light.throughput(1) == light.images_per_second
    assert light.throughput(2) == pytest.approx(2 * light.images_per_second)
    weights = maker.constant(np.broadcast_to(np.int8(1), (4096, 16384)))
    heavy = estimate(maker.finish(maker.op('linear', [
        maker.input('x', (1, 16384)), weights, maker.integers((4096, ), 'int32')],
        (1, 4096))), 'nash-p')
    bound = heavy.march.ddr_bytes_per_cycle.value * NOMINAL_CLOCK_HZ / (
        heavy.loaded_bytes + heavy.stored_bytes)
    assert heavy.throughput(4) == pytest.approx(bound)
    assert bound < 4 * heavy.images_per_second
