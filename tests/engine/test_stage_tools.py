"""The commands: what they refuse ends with exit code 2 and one message."""
import json
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).parents[2] / 'tools'


def run(tool, *arguments, cwd):
    return subprocess.run([sys.executable, '-W', 'ignore', str(TOOLS / tool), *map(str, arguments)],
                          capture_output=True, text=True, timeout=200, cwd=cwd)


def test_without_a_checkpoint_training_says_what_to_give(tiny_config, tmp_path):
    done = run('train.py', tiny_config, '--stage', 'qat', cwd=tmp_path)
    assert done.returncode == 2
    message = done.stderr[done.stderr.index('error:'):]
    assert '--load-from FILE' in message and 'work_dirs/tiny_calibration' in message
    assert 'Traceback' not in done.stderr


def test_an_unknown_field_ends_with_exit_code_2(tiny_config, tmp_path):
    done = run('train.py', tiny_config, '--stage', 'qat', '--cfg-options', 'bpu.marsh=nash-e',
               cwd=tmp_path)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert 'did you mean bpu.march?' in done.stderr


def test_float_is_measured_under_deploy_preprocessing_too(tiny_config, trained, tmp_path):
    done = run('test.py', tiny_config, trained / 'tiny_float' / 'epoch_2.pth', '--stage', 'float',
               '--deploy-preprocessing', '--out', 'out/metrics.json', '--work-dir', 'w',
               cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert metrics['float_deploy/coco/bbox_mAP'] == metrics['coco/bbox_mAP']
