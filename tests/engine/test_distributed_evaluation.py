"""Two processes evaluate as one: the integer model of a detector."""
import json
import os
import subprocess
import sys
from pathlib import Path

TEST_TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'test.py'


def test_integers_have_the_metrics_of_one_process(trained, staged, tool_process, tmp_path):
    config, checkpoint = tmp_path / 'int.py', trained / 'tiny_qat' / 'epoch_2.pth'
    staged('int', tmp_path / 'run').dump(config)
    arguments = [config, checkpoint, '--stage', 'int', '--out']
    done = tool_process('test.py', *arguments, tmp_path / 'one.json', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc_per_node', '2',
         '--standalone', TEST_TOOL, *arguments, tmp_path / 'two.json', '--launcher', 'pytorch'],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})  # two processes on the CPU
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f'{name}.json').read_text()) for name in ('one', 'two'))
    assert one['int/coco/bbox_mAP'] >= 0
    assert {key: value for key, value in two.items() if 'coco' in key} == {
        key: value for key, value in one.items() if 'coco' in key}
