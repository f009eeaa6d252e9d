"""What a march has no unit for, and whose limits it takes."""
import pytest

from mmdet_bpu.compiler.legality import check_program, refuse_errors
from mmdet_bpu.errors import BpuError


def test_nash_b_leaves_quantize_dequantize_and_top_k_to_the_host(maker):
    scores = maker.input('scores', (1, 100), 'si16')
    out = maker.op('topk', [scores], (1, 10), 'si16', site='/topk.0')
    program = maker.finish(out)
    error, *notes = check_program(program, 'nash-b')
    assert (error.level, error.op, error.site, error.unit) == (
        'error', 'hbir.topk', '/topk.0', 'host')
    assert {note.op for note in notes} == {'', 'quantize', 'dequantize'}
    assert {note.level for note in notes} == {'note'}
    with pytest.raises(BpuError, match='1 ops cannot run on nash-b'):
        refuse_errors([error], 'nash-b')
    assert check_program(program, 'nash-e')[0].level == 'warning'


def test_nash_h_takes_the_limits_of_nash_p(maker):
    x = maker.input('x', (1, 32, 32, 8))
    maker.op('max_pool', [x], (1, 32, 32, 8), kernel=[3, 3], stride=[1, 1], pad=[-8, 0, 0, 0])
    program = maker.finish()
    rules = [[finding.rule for finding in check_program(program, march)
              if finding.level == 'error'] for march in ('nash-h', 'nash-p', 'nash-e')]
    assert rules[0] == rules[1] == ['pad in [-4, 256]'] and rules[2] == []
