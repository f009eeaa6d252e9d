"""What leaves the chip: chains of rows, values that compete for the SRAM, products read in parts."""
import numpy as np
import pytest

from mmdet_bpu.compiler.on_chip import traffic
from mmdet_bpu.compiler.row_tiles import makes_rows, reads_rows, row_bytes, window_rows
from mmdet_bpu.compiler.schedule import schedule
from mmdet_bpu.compiler.tile_chains import Flow, chains_of
from mmdet_bpu.program.program import TensorType

MIB = 2**20


def moved(program, sram):
    return traffic(program, schedule(program), sram)


def inner(program, result):
    """Activations in DDR besides inputs and outputs."""
    return result.in_ddr - set(program.inputs) - set(program.outputs)


def constants(program):
    return sum(v.type.nbytes for v in program.values.values() if v.data is not None)


@pytest.fixture
def wide(maker):
    """Six 3 x 3 convolutions and a depthwise one on maps of 4 MB, weights of 70 kB."""
    x = maker.input('x', (1, 256, 512, 32))
    for _ in range(6):
        x = maker.conv(x, 32)
    x = maker.op('conv2d', [x, maker.integers((32, 3, 3, 1)), maker.integers((32, ), 'int32')],
                 (1, 256, 512, 32), groups=32)
    return maker.finish(maker.op('add', [x, x], (1, 256, 512, 32)))


def test_a_chain_of_convolutions_keeps_only_rows(wide):
    result = moved(wide, 2 * MIB)
    assert inner(wide, result) == set()
    assert len(result.chains) == 1 and result.chains[0].held_bytes < 2 * MIB
    size = 256 * 512 * 32
    assert sum(result.read) == constants(wide) + size
    assert sum(result.written) == size


def test_rows_that_do_not_fit_cut_the_chain(wide):
    """A row has 16 kB; seven layers with windows of three do not fit in 200 kB."""
    result = moved(wide, 200_000)
    assert len(result.chains) > 1
    assert sum(result.written) > 256 * 512 * 32
    assert all(chain.held_bytes <= 200_000 for chain in result.chains)


def test_weights_of_a_chain_stay_on_chip_so_they_cut_it_too(maker):
    x = maker.input('x', (1, 128, 256, 64))
    for _ in range(4):
        x = maker.conv(x, 64, 7)  # 0.2 MB of weights each, maps of 2 MB
    program = maker.finish(x)
    assert len(moved(program, 4 * MIB).chains) == 1
    assert len(moved(program, 600_000).chains) > 1


def test_a_mean_over_the_map_ends_a_chain(maker):
    """Squeeze and excitation: the map is written, and read again when its mean is known."""
    x = maker.conv(maker.input('x', (1, 256, 256, 64)), 64)
    mean = maker.op('reduce_sum', [x], (1, 1, 1, 64), dims=[1, 2])
    program = maker.finish(maker.op('mul', [x, mean], (1, 256, 256, 64)))
    result = moved(program, 2 * MIB)
    assert inner(program, result) == {x}
    assert sum(result.read) == constants(program) + 256 * 256 * (64 + 64)
    assert sum(result.written) == 256 * 256 * (64 + 64)


def test_a_softmax_over_the_last_dimension_is_one_chain(maker):
    shape, one = (8, 1050, 1050), (8, 1050, 1)
    x = maker.input('x', shape)
    top = maker.op('reduce_max', [x], one, dims=[2])
    shifted = maker.op('sub', [x, top], shape)
    powers = maker.op('table', [shifted], shape)
    total = maker.op('reduce_sum', [powers], one, dims=[2])
    program = maker.finish(maker.op('mul', [powers, total], shape))
    result = moved(program, 2 * MIB)
    assert len(result.chains) == 1 and inner(program, result) == set()


def test_the_matrix_between_two_products_is_whole(maker):
    scores = maker.op('matmul', [maker.input('a', (8, 1050, 32)), maker.input('b', (8, 32, 1050))],
                      (8, 1050, 1050))
    out = maker.op('matmul', [scores, maker.input('c', (8, 1050, 32))], (8, 1050, 32))
    program = maker.finish(out)
    assert inner(program, moved(program, 2 * MIB)) == {scores}
    assert inner(program, moved(program, 32 * MIB)) == set()


def test_the_largest_of_those_that_compete_leaves(maker):
    small = maker.op('transpose', [maker.input('a', (1, 100, 64))], (1, 100, 64), dims=[0, 1, 2])
    large = maker.op('transpose', [maker.input('b', (1, 3000, 256))], (1, 3000, 256),
                     dims=[0, 1, 2])
    joined = maker.op('transpose', [large], (1, 3000, 256), dims=[0, 1, 2])
    program = maker.finish(maker.op('matmul', [small, joined], (1, 100, 256)))
    gone = inner(program, moved(program, 1_000_000))
    assert small not in gone and {large, joined} & gone


def test_a_reshape_moves_nothing_and_names_the_same_bytes(maker):
    x = maker.op('transpose', [maker.input('a', (1, 3000, 256))], (1, 3000, 256), dims=[0, 1, 2])
    flat = maker.op('reshape', [x], (3000, 256), shape=[3000, 256])
    program = maker.finish(maker.op('transpose', [flat], (256, 3000), dims=[1, 0]))
    result = moved(program, 100_000)
    assert result.read[1] == result.written[1] == 0
    assert result.in_ddr == {'a', x, *program.outputs}
    assert sum(result.read) == 2 * 3000 * 256


def test_factors_that_do_not_fit_are_read_in_parts(maker):
    weights = maker.constant(np.broadcast_to(np.int8(1), (4096, 4096)))  # 16.8 MB
    bias = maker.integers((4096, ), 'int32')
    x = maker.input('x', (1, 1024, 4096))  # 4.2 MB
    program = maker.finish(maker.op('linear', [x, weights, bias], (1, 1024, 4096)))
    whole = 4096 * 4096 + 4 * 4096
    assert sum(moved(program, 8 * MIB).read) == whole + 1024 * 4096
    assert sum(moved(program, 2 * MIB).read) == whole * 2 + 1024 * 4096


def test_windows_and_rows(maker):
    x = maker.input('x', (1, 16, 16, 8))
    maker.conv(x, 8, 5, dilation=[2, 2])
    maker.op('max_pool', [x], (1, 8, 8, 8), kernel=[3, 3])
    maker.op('resize', [x], (1, 32, 32, 8))
    maker.op('add', [x, x], (1, 16, 16, 8))
    program = maker.finish()
    assert [window_rows(program, each) for each in program.instructions] == [9, 3, 2, 1]
    assert row_bytes(TensorType((1, 16, 16, 8), 'si16')) == 16 * 8 * 2
    assert row_bytes(TensorType((1, 100, 8), 'si8')) == 8
    assert row_bytes(TensorType((), 'si32')) == 4


@pytest.mark.parametrize('op, shape, attrs, expected', [
    ('reduce_sum', (1, 4, 1), dict(dims=[2]), True),
    ('reduce_sum', (1, 4, 1), dict(dims=[-1]), True),
    ('reduce_sum', (1, 1, 8), dict(dims=[1]), False),
    ('slice', (1, 4, 3), dict(begin=[0, 0, 0], end=[1, 4, 3]), True),
    ('slice', (1, 2, 8), dict(begin=[0, 0, 0], end=[1, 2, 8]), False),
    ('transpose', (1, 8, 4), dict(dims=[0, 2, 1]), False),
    ('grid_sample', (1, 4, 8), {}, False),
    ('table', (1, 4, 8), {}, True),
])
def test_what_runs_by_rows(maker, op, shape, attrs, expected):
    maker.op(op, [maker.input('x', (1, 4, 8))], shape, **attrs)
    program = maker.finish()
    assert makes_rows(program, program.instructions[0]) is expected
    assert reads_rows(program, program.instructions[0]) is expected


def test_a_pooling_of_a_whole_map_reads_rows_and_makes_none(maker):
    maker.op('reduce_sum', [maker.input('x', (1, 4, 5, 8))], (1, 1, 1, 8), dims=[1, 2])
    maker.op('reduce_sum', [maker.input('y', (1, 4, 5, 8))], (1, 4, 1, 8), dims=[2])
    program = maker.finish()
    pooled, summed = program.instructions
    assert reads_rows(program, pooled) and not makes_rows(program, pooled)
    assert not reads_rows(program, summed)


def test_chains_cover_the_schedule_once(detector):
    flow = Flow.of(detector, schedule(detector))
    for sram in (1, 1000, MIB):
        chains = chains_of(flow, sram, set())
        steps = [step for chain in chains for step in range(chain.start, chain.end)]
        assert steps == list(range(len(flow.steps)))
