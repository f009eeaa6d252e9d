"""The table of limits against the published facts it was made from."""
import json
import re
from pathlib import Path

import pytest

from mmdet_bpu.compiler.limits import limits_of
from mmdet_bpu.compiler.march import MARCHES

FACTS = Path(__file__).parents[2].parent / 'shared' / 'hbir'
TYPES = {'int8': 'si8', 'int16': 'si16', 'int32': 'si32', 'int64': 'si64', 'bool8': 'i1',
         'float16': 'f16', 'float32': 'f32'}


def facts(march):
    path = FACTS / f'limits_{march}.json'
    if not path.exists():
        pytest.skip(f'the published facts for {march} are not beside this checkout')
    return json.loads(path.read_text())


@pytest.mark.parametrize('march', ['nash-e', 'nash-p'])
def test_every_published_op_has_a_row_that_agrees_on_the_units(march):
    for op, units in facts(march).items():
        limits = limits_of(op, march)
        assert limits is not None, op
        assert (limits.bpu is None) == (units['bpu'] == 'unsupported'), op
        assert limits.vpu == ('F16' in units['vpu']), op


@pytest.mark.parametrize('march', ['nash-e', 'nash-p'])
def test_integer_types_of_inputs_are_the_published_ones(march):
    checked = 0
    for op, units in facts(march).items():
        limits = limits_of(op, march)
        if limits.bpu is None or isinstance(units['bpu'], str) or op == 'hbir.warp':
            continue
        for limit in limits.bpu:
            lines = units['bpu'].get(limit.subject, []) if limit.kind == 'dtype' else []
            line = next((text for text in lines if text.startswith('Type:')), '')
            found = re.findall(r'\b(?:int|bool|float)\d+\b', re.split(r'cannot|if type', line)[0])
            if found:
                assert {TYPES[name] for name in found} == set(limit.allowed), (op, limit)
                checked += 1
    assert checked > 60


def test_nash_m_takes_the_limits_of_nash_e_and_says_so():
    assert limits_of('hbir.conv2d', 'nash-m').bpu == limits_of('hbir.conv2d', 'nash-e').bpu
    assert 'nash-e' in MARCHES['nash-m'].note


def test_rows_name_their_source():
    limits = limits_of('hbir.conv2d', 'nash-p')
    assert 'nash-p, row hbir.conv2d, unit BPU' in limits.source()


def test_an_op_that_is_not_published_has_no_row():
    assert limits_of('hbir.fft', 'nash-e') is None
