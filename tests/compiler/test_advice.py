"""Dear layers and what would make them cheaper; two estimates side by side."""
import pytest

from mmdet_bpu.compiler.advice import dearest_layers
from mmdet_bpu.compiler.comparison import compare_estimates
from mmdet_bpu.errors import BpuError
from tests.compiler.test_performance import estimate


def changes(layer):
    return [way.change.split(':')[0] for way in layer.ways]


def test_the_three_longest_layers_come_first(detector):
    result = estimate(detector)
    dear = dearest_layers(result)
    times = sorted((layer.time_us for layer in result.layers), reverse=True)
    assert [layer.time_us for layer in dear] == times[:3]
    assert dear[0].share == pytest.approx(times[0] / result.latency_us)
    assert dear[0].as_dict()['ways'][0].keys() == {'change', 'saves_us'}


def test_a_depthwise_product_of_int16_is_told_both(maker):
    image = maker.input('image', (1, 32, 32, 64), 'si16')
    maker.op('conv2d', [image, maker.integers((64, 3, 3, 1)), maker.integers((64, ), 'int32')],
             (1, 32, 32, 64), 'si16', groups=64)
    layer, = dearest_layers(estimate(maker.finish()))
    assert 'int8 in place of int16' in changes(layer)
    assert 'channels of a group in multiples of 16' in changes(layer)
    saved = [way.saves_us for way in layer.ways]
    assert saved == sorted(saved, reverse=True) and saved[0] <= layer.time_us


def test_int8_saves_what_the_model_says_that_it_saves(maker):
    def one(dtype):
        maker.instructions.clear()
        maker.conv(maker.input(f'x_{dtype}', (1, 64, 64, 64), dtype), 64, 3)
        return estimate(maker.finish())

    wide, narrow = one('si16'), one('si8')
    way = next(way for way in dearest_layers(wide)[0].ways if way.change.startswith('int8'))
    assert way.saves_us == pytest.approx(wide.layers[0].time_us - narrow.layers[0].time_us)


def test_what_is_bound_by_weights_is_told_so(maker):
    maker.op('linear', [maker.input('x', (1, 4096)), maker.integers((1024, 4096)),
                        maker.integers((1024, ), 'int32')], (1, 1024))
    layer, = dearest_layers(estimate(maker.finish()))
    assert layer.bound_by == 'DDR' and changes(layer)[0] == 'half the 4.20 MB of weights'


def test_sampling_is_made_cheaper_by_fewer_points(maker):
    maker.op('grid_sample', [maker.input('value', (8, 50, 84, 32)),
                             maker.input('grid', (8, 5000, 4, 2), 'si16')], (8, 5000, 4, 32))
    layer, = dearest_layers(estimate(maker.finish()))
    assert 'half the sampled points, levels or channels' in changes(layer)


def test_differences_of_two_programs(maker, detector):
    first = estimate(detector)
    maker.instructions.clear()
    maker.conv(maker.input('x', (1, 64, 64, 64)), 64)
    second = estimate(maker.finish())
    rows = {row.quantity: row for row in compare_estimates(first, second)}
    assert (rows['latency'].first, rows['latency'].second) == (first.latency_ms, second.latency_ms)
    assert rows['latency'].change == pytest.approx(second.latency_ms / first.latency_ms - 1)
    assert rows['bpu.linear'].second == 0 and rows['bpu.linear'].change == -1
    assert rows['DDR written'].unit == 'MB'
    with pytest.raises(BpuError, match='expected 1 on nash-e, found 2'):
        compare_estimates(first, second, cores=2)
