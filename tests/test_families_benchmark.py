"""Stock configs through the whole chain, by the script that measures all of them."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / 'benchmarks'
# Small ones of two families, at the smallest input under which they find enough.
CONFIGS = {
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py': (128, 128),
    'mmdet::detr/detr_r18_8xb2-500e_coco.py': (128, 128),
}


def families(*arguments, timeout=900):
    return subprocess.run([sys.executable, '-W', 'ignore', str(BENCHMARKS / 'families.py'),
                           *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                          env=dict(os.environ, OMP_NUM_THREADS='1'))


@pytest.mark.parametrize('config', CONFIGS)
def test_a_stock_config_passes_every_step(config, tmp_path):
    done = families('--configs', config, '--shape', *CONFIGS[config], '--json',
                    tmp_path / 'rows.json')
    row, = json.loads((tmp_path / 'rows.json').read_text())
    assert set(row) == {'config', 'family', 'passed', 'step', 'message', 'max_lsb', 'boxes',
                        'seconds'}
    assert row['passed'], f'{row["step"]}: {row["message"]}\n{done.stderr[-3000:]}'
    assert done.returncode == 0
    assert row['family'] == config.partition('::')[2].partition('/')[0]
    assert row['boxes']['before'] >= 50 and row['boxes']['classes'] >= 5
    assert row['boxes']['after'] >= 10 and row['boxes']['int'] > 0


def test_a_refusal_is_one_line_and_no_pass(tmp_path):
    done = families('--configs', 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '--json',
                    tmp_path / 'rows.json')
    row, = json.loads((tmp_path / 'rows.json').read_text())
    assert not row['passed'] and row['step'] == 'build' and row['message']
    assert 'Traceback' not in done.stdout + done.stderr and done.returncode == 1
    assert row['message'] in done.stdout


def test_the_steps_can_fail(monkeypatch):
    """Boxes that differ, or are missing, are told apart."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import numpy as np
    from family_chain import Failed, compare_boxes
    boxes = np.float32([[0, 0, 10, 10], [5, 5, 20, 20]])
    found = (boxes, np.float32([0.9, 0.4]), np.int64([1, 2]))
    compare_boxes(found, tuple(part[::-1] for part in found))
    for changed in ((boxes + np.float32([[1], [0]]), *found[1:]),
                    (boxes, found[1] - np.float32([0.1, 0]), found[2]),
                    (*found[:2], np.int64([3, 2])),
                    tuple(part[:1] for part in found)):
        with pytest.raises(Failed):
            compare_boxes(changed, found)
