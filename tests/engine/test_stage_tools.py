"""The commands: what they refuse ends with exit code 2 and one message."""
import json


def test_without_a_checkpoint_training_says_what_to_give(tool_process, tiny_config, tmp_path):
    done = tool_process('train.py', tiny_config, '--stage', 'qat', cwd=tmp_path)
    assert done.returncode == 2
    message = done.stderr[done.stderr.index('error:'):]
    assert '--load-from FILE' in message and 'work_dirs/tiny_calibration' in message
    assert 'Traceback' not in done.stderr


def test_an_unknown_field_ends_with_exit_code_2(tool_process, tiny_config, tmp_path):
    done = tool_process('train.py', tiny_config, '--stage', 'qat',
                        '--cfg-options', 'bpu.marsh=nash-e', cwd=tmp_path)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert 'did you mean bpu.march?' in done.stderr


def test_float_is_measured_under_deploy_preprocessing_too(tool_process, tiny_config, trained,
                                                          tmp_path):
    checkpoint = trained / 'tiny_float' / 'epoch_2.pth'
    done = tool_process('test.py', tiny_config, checkpoint, '--stage', 'float',
                        '--deploy-preprocessing', '--out', 'out/metrics.json', '--work-dir', 'w',
                        cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert metrics['float_deploy/coco/bbox_mAP'] == metrics['coco/bbox_mAP']
