"""benchmarks/nms_against_mmcv.py: what it counts, and what it needs."""
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmdet_bpu.compat import has_compiled_ext
from mmdet_bpu.mmcv_operators.nms import nms

SCRIPT = Path(__file__).resolve().parents[2] / 'benchmarks' / 'nms_against_mmcv.py'


def test_without_compiled_operators_it_says_what_to_install(monkeypatch, capsys):
    if has_compiled_ext():
        pytest.skip('full mmcv is installed')
    monkeypatch.setattr('sys.argv', [str(SCRIPT)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name='__main__')
    assert stop.value.code == 2
    assert 'install full mmcv instead of mmcv-lite' in capsys.readouterr().err


def test_a_difference_is_counted_and_described(monkeypatch):
    script = runpy.run_path(str(SCRIPT))
    compare = script['compare_nms']
    monkeypatch.setitem(compare.__globals__, 'COUNTS', (0, 17))
    assert compare(SimpleNamespace(nms=nms))['differing'] == []

    def reversed_order(*args, **kwargs) -> torch.Tensor:
        return nms(*args, **kwargs).flip(0)

    found = compare(SimpleNamespace(nms=reversed_order))
    assert 0 < found['equal'] < found['cases'] == 240
    assert len(found['differing']) == found['cases'] - found['equal']
    assert 'real, 17 boxes, 16 score levels, offset 1, threshold 0.5' in found['differing']
