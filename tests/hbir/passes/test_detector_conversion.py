"""Whole detectors: both forms read as MLIR, keep to their tables, and agree."""
import json
from collections import Counter
from pathlib import Path

import pytest

from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.builder import constant_array, operations
from mmdet_bpu.hbir.hbir_dialect import HBIR_SPECS
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.passes import PIPELINE, convert, run_pipeline
from mmdet_bpu.hbir.text import parse_text, print_text, verify_module
from mmdet_bpu.hbir.types import value_type

VARIANTS = ['', 'refine', 'refine-twostage']
PUBLISHED = Path(__file__).resolve().parents[3].parent / 'shared' / 'hbir' / 'ops.json'
parametrize_variants = pytest.mark.parametrize('variant', VARIANTS)


@pytest.fixture(scope='module')
def integer_form(small_detector):
    forms = {}

    def form(variant):
        if variant not in forms:
            forms[variant] = convert(small_detector(variant).hbir)[0]
        return forms[variant]

    return form


@pytest.mark.parametrize('variant', ['refine-twostage'])  # has all that the others have
@pytest.mark.parametrize('form', ['hbir', 'int'])
def test_the_text_parses_verifies_and_prints_back(small_detector, integer_form, variant, form):
    module = small_detector(variant).hbir if form == 'hbir' else integer_form(variant)
    text = print_text(module)
    again = parse_text(text)
    verify_module(again)
    assert print_text(again) == text


@parametrize_variants
def test_hbir_uses_nothing_outside_our_table(small_detector, variant):
    for op in operations(small_detector(variant).hbir):
        if op.name == 'qnt.const_fake_quant':
            assert set(op.properties) <= {'bits', 'illegal', 'max', 'min', 'narrowRange', 'axis'}
        else:
            assert set(op.properties) <= set(HBIR_SPECS[op.name.removeprefix('hbir.')].attributes)


@parametrize_variants
def test_hbir_uses_nothing_that_is_not_published(small_detector, variant):
    if not PUBLISHED.exists():
        pytest.skip('../shared/hbir/ops.json is not here')
    published = json.loads(PUBLISHED.read_text())
    for op in operations(small_detector(variant).hbir):
        if op.name != 'qnt.const_fake_quant':
            signature = published[op.name]
            assert set(op.properties) <= set(signature['attributes']), op.name
            check_elements(op.results, signature['results'])
            if op.name != 'hbir.concat':  # takes any number
                assert len(op.operands) <= len(signature['operands'])
                check_elements(op.operands, signature['operands'])


def check_elements(values, published):
    for value, named in zip(values, published.values()):
        assert value_type(value).dtype in named['elements'] or is_constant_mask(value)


def is_constant_mask(value):
    """The published condition of a where is i1; how it is made is not published."""
    return value_type(value).dtype == 'i1' and constant_array(value) is not None


@parametrize_variants
def test_the_integer_form_holds_integers_only(integer_form, variant):
    for op in operations(integer_form(variant)):
        assert op.name.startswith('bpu.')
        assert {value_type(v).dtype for v in (*op.operands, *op.results)} <= {
            'si8', 'si16', 'si32', 'i1'}


@pytest.mark.parametrize('variant', ['refine-twostage'])
def test_conversion_is_reproducible(small_detector, integer_form, variant):
    assert print_text(convert(small_detector(variant).hbir)[0]) == print_text(
        integer_form(variant))


@parametrize_variants
def test_fewer_movements_give_the_same_outputs(small_detector, integer_form, variant):
    small = small_detector(variant)
    names = [step.name for step in PIPELINE]
    plain = run_pipeline(small.hbir, PIPELINE[:names.index('emit') + 1]).result
    before, after = (Counter(op.name for op in operations(m))
                     for m in (plain, integer_form(variant)))
    assert after['bpu.transpose'] < before['bpu.transpose']
    assert after['bpu.reshape'] < before['bpu.reshape']
    computing = {k for k in before if k not in ('bpu.transpose', 'bpu.reshape')}
    assert {k: before[k] for k in computing} == {k: after[k] for k in computing}
    executables = [Interpreter(program_from_module(m)) for m in (plain, integer_form(variant))]
    image = image_integers(executables[0], small)
    first, second = (e.run({'image': image}) for e in executables)
    assert all((first[name] == second[name]).all() for name in first)


def image_integers(executable, small):
    import torch
    scale = executable.inputs[0].scale
    image = small.image.permute(0, 2, 3, 1).contiguous()
    return (image / scale).round().clamp(-128, 127).to(torch.int8)


@parametrize_variants
def test_softmax_and_norms_are_primitives(small_detector, variant):
    kinds = {op.name for op in operations(small_detector(variant).hbir)}
    assert not kinds & {'hbir.softmax', 'hbir.layernorm', 'hbir.batchnorm'}
