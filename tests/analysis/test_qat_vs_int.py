"""QAT against integer, op by op between neighbouring quantizers."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdet_bpu.analysis.composites import find_composites
from mmdet_bpu.analysis.qat_vs_int import compare_qat_int, integers_before, is_rounding
from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.types import tensor_type
from mmdet_bpu.kernels import registry as kernels
from mmdet_bpu.kernels.kernel_set import Kernel

VARIANTS = ['', 'refine', 'refine-twostage']
CHECKOUT = Path(__file__).resolve().parents[2]
X = tensor_type((16, 32), 'f32')


def channels_last(image):
    return image.permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope='module')
def comparison(small_detector):
    """``comparison(variant)``: what compare_qat_int says of that detector."""
    found = {}

    def compare(variant):
        if variant not in found:
            small = small_detector(variant)
            found[variant] = compare_qat_int(small.model, channels_last(small.image))
        return found[variant]

    return compare


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_rounding_of_a_detector_is_within_one_lsb(comparison, variant):
    result = comparison(variant)
    assert result['max_lsb'] == 1 and 0 < result['differing_share'] < 0.1
    assert len(result['ops']) > 100
    assert all(row['max_lsb'] <= 1 and 'cause' not in row for row in result['ops'])


@pytest.mark.parametrize('variant', VARIANTS)
def test_int8_products_rarely_differ(comparison, variant):
    for kind in ('conv2d si8', 'linear si8', 'mul si8'):
        assert comparison(variant)['by_kind'][kind]['differing_share'] < 2e-3


@pytest.mark.parametrize('variant', VARIANTS)
def test_composites_are_compared_as_wholes(comparison, variant):
    wholes = comparison(variant)['wholes']
    assert {row['kind'] for row in wholes} == {'softmax', 'layer_norm', 'group_norm'}
    for row in wholes:
        if row['dtype'] == 'si8':
            assert row['qat_max_lsb'] <= 1 and row['max_lsb'] <= 2, row


@pytest.mark.parametrize('variant', VARIANTS)
def test_scores_without_a_quantizer_are_compared_in_their_unit(comparison, variant):
    row, = comparison(variant)['unrounded']
    assert row['dtype'] == 'si32' and row['max_difference'] < 1e-4 * max(row['largest'], 1)


def test_the_integers_of_the_image_give_the_same_as_the_image(small_detector, comparison):
    small = small_detector('')
    from mmdet_bpu.executors.interpreter import Interpreter
    from mmdet_bpu.hbir.passes import convert
    scale = Interpreter(program_from_module(convert(small.hbir)[0])).inputs[0].scale
    integers = (channels_last(small.image) / scale).round().clamp(-128, 127).to(torch.int8)
    assert compare_qat_int(small.hbir, integers) == comparison('')


def test_an_image_of_another_shape_is_refused(small_detector):
    with pytest.raises(BpuError, match=r'expected the normalised image \(1, 64, 96, 3\)'):
        compare_qat_int(small_detector('').hbir, torch.zeros(1, 3, 64, 96))


def sum_module(guard_scale=1 / 2**15):
    """``x + exp(x)`` and its double, with neighbouring quantizers; exp in int16."""
    b = OpBuilder([('x', X)])
    x = b.fake_quant(b.inputs[0], 16, 1 / 2**15, site='image')
    e = b.fake_quant(b.op('hbir.exp', [x], {}, X, site='exp.0'), 16, 3 / 2**15, site='exp.0')
    y = b.fake_quant(b.op('hbir.add', [x, e], {}, X, site='add.0'), 16, 4 * guard_scale,
                     site='add.0')
    return b.finish([('y', y)])


def noise():
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (16, 32)).astype(np.float32))


def test_rows_name_site_kind_and_type():
    rows = compare_qat_int(sum_module(), noise())['ops']
    assert [(row['site'], row['kind'], row['dtype'], row['elements']) for row in rows] == [
        ('exp.0', 'table', 'si16', 512), ('add.0', 'add', 'si16', 512)]


def test_an_error_is_charged_to_the_op_that_makes_it(monkeypatch):
    """A kernel that is 3 LSB off shows in its own row only, with a cause."""
    right = kernels.KERNELS['bpu.table']
    wrong = Kernel('bpu.table', lambda inputs, attrs: [right(inputs, attrs)[0] + 3])
    monkeypatch.setitem(kernels.KERNELS, 'bpu.table', wrong)
    result = compare_qat_int(sum_module(), noise())
    table, add = result['ops']
    assert 2 <= table['max_lsb'] <= 4 and table['differing_share'] > 0.99
    assert 'piecewise linear' in table['cause']
    assert add['max_lsb'] <= 1 and 'cause' not in add
    assert result['max_lsb'] == table['max_lsb']


def test_what_a_rounding_depends_on_ends_at_other_roundings():
    module = sum_module()
    roundings = [op for op in module.walk() if is_rounding(op)]
    image, exp, total = roundings
    assert set(integers_before(total.operands[0])) == {image.results[0], exp.results[0]}
    assert integers_before(image.operands[0]) == []


def test_two_calls_at_one_site_are_two_composites():
    b = OpBuilder([('x', X)])
    value = b.fake_quant(b.inputs[0], 8, 1 / 128, site='image')
    for _ in range(2):
        for number, name in enumerate(('exp', 'neg')):
            site = f'attn/softmax.{name}.{number}'
            value = b.fake_quant(b.op(f'hbir.{name}', [value], {}, X, site=site), 8, 1 / 32,
                                 site=site)
        site = 'attn/relu.0'
        value = b.fake_quant(b.op('hbir.relu', [value], {}, X, site=site), 8, 1 / 32, site=site)
    composites = find_composites(b.finish([('y', value)]), is_rounding)
    assert [(c.site, c.kind, len(c.inputs)) for c in composites] == [
        ('attn/softmax', 'softmax', 1)] * 2
    assert composites[0].output is not composites[1].output


def test_the_benchmark_prints_json(small_detector, tmp_path):
    from mmdet_bpu.hbir.text import write_text
    write_text(sum_module(), tmp_path / 'sum.mlir')
    done = subprocess.run([sys.executable, CHECKOUT / 'benchmarks' / 'qat_vs_int.py',
                           tmp_path / 'sum.mlir', '--threads', '1'], capture_output=True,
                          text=True, check=True)
    result = json.loads(done.stdout)
    assert result['max_lsb'] <= 1 and set(result['by_kind']) == {'table si16', 'add si16'}
