"""One integer operation per rounding; what is left in float is refused with its site."""
import numpy as np
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder, attrs_of, operations
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.types import tensor_type, value_type

X = tensor_type((4, 6), 'f32')
STEP16 = 1 / 2**15


class Graph:
    """Operations on a rounded input ``x``."""

    def __init__(self, shape=(4, 6), bits=8, scale=1 / 128):
        self.b = OpBuilder([('x', tensor_type(shape, 'f32'))])
        self.x = self.b.fake_quant(self.b.inputs[0], bits, scale, site='image')

    def op(self, name, operands, attrs, shape, site='here'):
        return self.b.op(name, operands, attrs, tensor_type(shape, 'f32'), site=site)

    def rounded(self, value, bits=8, scale=1 / 128):
        return self.b.fake_quant(value, bits, scale, site='here')

    def finish(self, value):
        return self.b.finish([('y', value)])


def kinds(module):
    return [op.name for op in operations(convert(module)[0]) if op.name != 'bpu.constant']


def test_a_matmul_of_two_values(largest_lsb):
    g = Graph()
    t = g.op('hbir.transpose', [g.x], dict(dims=[1, 0]), (6, 4))
    module = g.finish(g.rounded(g.op('hbir.matmul', [g.x, t], {}, (4, 4)), 16, 6 * STEP16))
    assert kinds(module) == ['bpu.transpose', 'bpu.matmul']
    assert largest_lsb(module) <= 1


@pytest.mark.parametrize('name', ['hbir.reduce_sum', 'hbir.reduce_mean'])
@pytest.mark.parametrize('bits', [8, 16])
def test_a_reduction_holds_its_count_in_the_multiplier(name, bits, largest_lsb):
    g = Graph(bits=bits, scale=2.0**(1 - bits))
    value = g.op(name, [g.x], dict(dims=[1], keepDim=True), (4, 1))
    module = g.finish(g.rounded(value, bits, 6 * 2.0**(1 - bits)))
    assert kinds(module) == ['bpu.reduce_sum']
    assert largest_lsb(module) <= 1


def test_a_reduction_that_may_leave_int32_is_refused():
    g = Graph((1, 70000), 16, STEP16)
    value = g.rounded(g.op('hbir.reduce_sum', [g.x], dict(dims=[1], keepDim=True), (1, 1)), 16, 1.0)
    with pytest.raises(BpuError, match='here: the sum of 70000 si16 values does not fit int32; '
                                       'write it in two steps of at most 65535 elements'):
        convert(g.finish(value))


def test_integers_rounded_again_are_requantized(largest_lsb):
    g = Graph(bits=16, scale=STEP16)
    module = g.finish(g.rounded(g.x, 8, 1 / 100))
    assert kinds(module) == ['bpu.requantize']
    assert largest_lsb(module) <= 1


@pytest.mark.parametrize('mode', ['constant', 'border'])
def test_grid_sample_keeps_the_scale_of_its_image(mode, largest_lsb):
    g = Graph((1, 6, 7, 2))
    rng = np.random.default_rng(0)
    points = rng.uniform(-1.2, 1.2, (1, 3, 50, 2)).astype(np.float32)
    grid = g.b.fake_quant(g.b.constant(points), 16, 1.2 * STEP16)
    attrs = dict(mode='bilinear', expansionMode=mode, alignCorner=False, padValue=0.0)
    value = g.op('hbir.grid_sample', [g.x, grid], attrs, (1, 3, 50, 2))
    module = g.finish(g.rounded(value))
    assert kinds(module) == ['bpu.grid_sample']
    assert largest_lsb(module) <= 1


def resize(g, mode, offset, step, size, result):
    attrs = dict(ratio=[1.0, 1.0], size=size, step=step, initialOffset=offset, mode=mode,
                 expansionMode='border', padValue=0.0)
    return g.op('hbir.resize2d', [g.x], attrs, result)


def test_a_nearest_resize_moves_the_integers(largest_lsb):
    g = Graph((1, 3, 5, 2))
    # A third is no multiple of 2**-20 px: rounded down alone, result 3 would read pixel 0.
    module = g.finish(resize(g, 'nearest', [0.0, 0.0], [1 / 3, 0.5], [9, 10], (1, 9, 10, 2)))
    assert kinds(module) == ['bpu.resize']
    assert largest_lsb(module) == 0


def test_a_nearest_resize_may_be_rounded_after(largest_lsb):
    g = Graph((1, 3, 5, 2))
    value = resize(g, 'nearest', [0.0, 0.0], [0.5, 0.5], [6, 10], (1, 6, 10, 2))
    module = g.finish(g.rounded(value, 8, 1 / 100))
    assert kinds(module) == ['bpu.resize', 'bpu.requantize']
    assert largest_lsb(module) <= 1


def test_a_bilinear_resize_keeps_the_scale_of_its_image(largest_lsb):
    g = Graph((1, 6, 7, 2))
    value = resize(g, 'bilinear', [-0.25, -0.1], [0.5, 0.8], [12, 9], (1, 12, 9, 2))
    module = g.finish(g.rounded(value))
    assert kinds(module) == ['bpu.resize']
    assert largest_lsb(module) <= 1


def test_a_bilinear_resize_on_another_scale_is_refused():
    g = Graph((1, 6, 7, 2))
    value = resize(g, 'bilinear', [-0.25, -0.25], [0.5, 0.5], [12, 14], (1, 12, 14, 2))
    with pytest.raises(BpuError, match='here: the result of a resize must have the scale of its'):
        convert(g.finish(g.rounded(value, 8, 1 / 64)))


@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
def test_a_resize_of_int16_is_refused_with_its_site(mode):
    g = Graph((1, 6, 7, 2), 16, 1 / 2**15)
    value = resize(g, mode, [0.0, 0.0], [0.5, 0.5], [12, 14], (1, 12, 14, 2))
    with pytest.raises(BpuError, match='here: a resize takes int8 only, found si16; change'):
        convert(g.finish(g.rounded(value, 16, 1 / 2**15)))


@pytest.mark.parametrize('change', [dict(mode='bicubic'), dict(expansionMode='constant')])
def test_a_resize_without_a_meaning_here_is_refused(change):
    g = Graph((1, 6, 7, 2))
    attrs = dict(ratio=[2.0, 2.0], size=[12, 14], step=[0.5, 0.5], initialOffset=[0.0, 0.0],
                 mode='nearest', expansionMode='border', padValue=0.0)
    value = g.op('hbir.resize2d', [g.x], {**attrs, **change}, (1, 12, 14, 2))
    with pytest.raises(BpuError, match='mode nearest or bilinear and expansionMode border'):
        convert(g.finish(g.rounded(value)))


@pytest.mark.parametrize('image_bits, grid_bits, culprit', [(16, 16, 'image'), (8, 8, 'grid')])
def test_a_grid_sample_of_other_types_is_refused(image_bits, grid_bits, culprit):
    g = Graph((1, 6, 7, 2), image_bits)
    grid = g.b.fake_quant(g.b.constant(np.zeros((1, 1, 1, 2), np.float32)), grid_bits, 0.1)
    attrs = dict(mode='bilinear', expansionMode='constant', alignCorner=False, padValue=0.0)
    value = g.op('hbir.grid_sample', [g.x, grid], attrs, (1, 1, 1, 2))
    with pytest.raises(BpuError, match='here: grid_sample takes an int8 image and an int16 grid, '
                                       f'found .*; change the qconfig rule of the {culprit}'):
        convert(g.finish(g.rounded(value)))


def test_selection_and_movement_are_exact(largest_lsb):
    g = Graph((4, 6))
    values, indices = g.b.op('hbir.topk', [g.x], dict(k=2, dim=1, largest=True, sorted=True),
                             [tensor_type((4, 2), 'f32'), tensor_type((4, 2), 'si32')])
    picked = g.op('hbir.gather_elements', [g.x, indices], dict(dim=1), (4, 2))
    both = g.op('hbir.concat', [values, picked], dict(dim=1), (4, 4))
    tiled = g.op('hbir.tile', [both], dict(multiplies=[1, 2]), (4, 8))
    part = g.op('hbir.slice', [tiled], dict(begin=[1, 0], end=[4, 8], step=[2, 3]), (2, 3))
    mask = g.b.constant(np.array([[True, False, True]]))
    value = g.op('hbir.where', [mask, g.b.constant(np.array([-0.5], np.float32)), part], {}, (2, 3))
    module = g.finish(value)
    assert kinds(module) == ['bpu.topk', 'bpu.gather', 'bpu.concat', 'bpu.tile', 'bpu.slice',
                             'bpu.where']
    assert largest_lsb(module) == 0


@pytest.mark.parametrize('fill, expected', [(-np.inf, -128), (1e9, 127), (-0.5, -64)])
def test_a_fill_saturates(fill, expected):
    g = Graph()
    mask = g.b.constant(np.array([[True, False] * 3]))
    value = g.op('hbir.where', [mask, g.b.constant(np.array([fill], np.float32)), g.x], {}, (4, 6))
    where, = [op for op in operations(convert(g.finish(value))[0]) if op.name == 'bpu.where']
    assert attrs_of(where)['fill'] == expected


def test_pooling_is_exact(largest_lsb):
    g = Graph((1, 7, 9, 3))
    attrs = dict(kernel=[3, 3], stride=[2, 2], pad=[1, 1, 1, 1], dilation=[1, 1], ceilMode=False)
    pooled = g.op('hbir.max_pool', [g.x], attrs, (1, 4, 5, 3))
    largest = g.op('hbir.reduce_max', [pooled], dict(dims=[1], keepDim=True), (1, 1, 5, 3))
    module = g.finish(g.op('hbir.reduce_min', [largest], dict(dims=[2], keepDim=True),
                           (1, 1, 1, 3)))
    assert kinds(module) == ['bpu.max_pool', 'bpu.reduce_max', 'bpu.reduce_min']
    assert largest_lsb(module) == 0


@pytest.mark.parametrize('ceil', [False, True])
def test_padding_that_differs_from_side_to_side_never_wins(largest_lsb, ceil):
    g = Graph((1, 7, 9, 3))
    attrs = dict(kernel=[3, 3], stride=[2, 2], pad=[0, 1, 2, 0], dilation=[1, 1], ceilMode=ceil)
    module = g.finish(g.op('hbir.max_pool', [g.x], attrs, (1, 4, 5 if ceil else 4, 3)))
    assert kinds(module) == ['bpu.max_pool']
    assert largest_lsb(module) == 0


AVG_POOL = dict(kernel=[3, 2], stride=[2, 2], pad=[0] * 4, dilation=[1, 1], ceilMode=False)


@pytest.mark.parametrize('bits', [8, 16])
def test_an_average_holds_the_size_of_its_window_in_the_multiplier(largest_lsb, bits):
    g = Graph((1, 7, 9, 3), bits, 2.0**(1 - bits))
    module = g.finish(g.rounded(g.op('hbir.avg_pool', [g.x], AVG_POOL, (1, 3, 4, 3)), bits,
                                0.7 * 2.0**(1 - bits)))
    assert kinds(module) == ['bpu.avg_pool']
    assert largest_lsb(module) <= 1


@pytest.mark.parametrize('change', [dict(pad=[1] * 4), dict(dilation=[2, 1]), dict(ceilMode=True)])
def test_an_average_of_windows_that_are_not_whole_is_refused(change):
    g = Graph((1, 7, 9, 3))
    value = g.op('hbir.avg_pool', [g.x], {**AVG_POOL, **change}, (1, 3, 4, 3))
    with pytest.raises(BpuError, match='here: hbir.avg_pool: expected whole windows'):
        convert(g.finish(g.rounded(value)))


def test_equal_constants_are_stored_once():
    g = Graph()
    value = g.x
    for _ in range(2):
        ones = g.b.fake_quant(g.b.constant(np.ones((1, 6), np.float32)), 8, 1 / 127)
        value = g.rounded(g.op('hbir.add', [value, ones], {}, (4, 6)), 8, 0.05)
    integer = convert(g.finish(value))[0]
    assert [op.name for op in operations(integer)].count('bpu.constant') == 1


def test_the_site_goes_along():
    g = Graph()
    value = g.op('hbir.add', [g.x, g.x], {}, (4, 6), site='encoder.layers.0/add.1')
    integer = convert(g.finish(g.rounded(value)))[0]
    assert [op.properties['site'].data for op in operations(integer)] == ['encoder.layers.0/add.1']


def test_names_and_metadata_are_kept():
    g = Graph()
    integer, _ = convert(g.finish(g.x), {'colour': 'RGB'})
    assert 'colour' in integer.attributes['bpu.metadata'].data
    assert 'hbir.name = "x"' in str(integer) and 'hbir.name = "y"' in str(integer)


def test_the_fake_quantized_module_is_not_changed():
    g = Graph()
    module = g.finish(g.rounded(g.op('hbir.add', [g.x, g.x], {}, (4, 6))))
    before = str(module)
    convert(module)
    assert str(module) == before


def test_an_input_without_a_fake_quantizer_is_refused():
    b = OpBuilder([('x', X)])
    with pytest.raises(BpuError, match="input 'x' has no fake quantizer"):
        convert(b.finish([('y', b.inputs[0])]))


def test_an_operand_that_is_not_rounded_is_refused_with_its_site():
    g = Graph()
    raw = g.op('hbir.add', [g.x, g.x], {}, (4, 6), site='block/add.0')
    t = g.op('hbir.transpose', [g.x], dict(dims=[1, 0]), (6, 4))
    value = g.op('hbir.matmul', [raw, t], {}, (4, 4), site='block/matmul.0')
    with pytest.raises(BpuError, match='block/add.0: hbir.add is neither rounded nor data '
                                       'movement; it cannot run on integers'):
        convert(g.finish(g.rounded(value)))


def test_a_constant_that_is_not_rounded_is_refused_with_its_site():
    g = Graph()
    ones = g.b.constant(np.ones((1, 6), np.float32))
    value = g.op('hbir.add', [g.x, ones], {}, (4, 6), site='block/add.0')
    with pytest.raises(BpuError, match='block/add.0.* reads a value that no fake quantizer rounds|'
                                       'block/add.0: hbir.add of tensors has no integer form'):
        convert(g.finish(g.rounded(value)))


def test_an_output_that_is_not_integers_is_refused():
    g = Graph()
    value = g.b.constant(np.ones((1, 6), np.float32))
    with pytest.raises(BpuError, match="output 'y' is not made of integers"):
        convert(g.finish(value))


def test_every_value_of_the_result_is_an_integer():
    g = Graph()
    module = g.finish(g.rounded(g.op('hbir.exp', [g.x], {}, (4, 6)), 16, 3 * STEP16))
    integer = convert(module)[0]
    for op in operations(integer):
        assert all(value_type(v).dtype in ('si8', 'si16', 'si32', 'i1') for v in op.results)
        assert not any(isinstance(v, float) for v in attrs_of(op).values())
