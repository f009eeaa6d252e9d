"""benchmarks/onnx_agreement.py on a user's checkpoint: the tiny detector's."""
import json
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip('onnx', reason='onnx is not installed')
pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
ROW = {'elements', 'within', 'differing', 'int32', 'largest_lsb', 'worst', 'end_to_end',
       'end_to_end_outputs'}


def run(monkeypatch, *arguments):
    """Exit code of the script, run in this process."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, 'argv', ['onnx_agreement.py', *map(str, arguments)])
    try:
        runpy.run_path(str(BENCHMARKS / 'onnx_agreement.py'), run_name='__main__')
    except SystemExit as stop:
        return stop.code
    return 0


def test_a_checkpoint_agrees_node_by_node_and_is_shown_beside_the_floor(
        tiny_config, random_checkpoints, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'found.json'
    assert run(monkeypatch, '--config', tiny_config, '--checkpoint', random_checkpoints['calibration'],
               '--images', 2, '--speed', '--repeats', 1, '--threads', 1, '--json', out) == 0
    found = json.loads(out.read_text())
    model, = found['models'].values()
    assert model['agrees'] and model['input'] == [1, 3, 64, 64]
    rows = model['runtimes']
    assert {'onnxruntime', 'onnxruntime, float biases', 'float64'} <= set(rows)
    for name in ('onnxruntime', 'onnxruntime, float biases', 'float64'):
        assert set(rows[name]) == ROW
        assert rows[name]['within'] == dict(int8=1.0, int16=1.0) and rows[name]['int32'] <= 1e-5
        assert rows[name]['elements'] == rows['float64']['elements']
    # Biases are what takes the runtime away from QAT.
    assert rows['onnxruntime, float biases']['differing']['int8'] \
        < rows['onnxruntime']['differing']['int8'] < 0.01
    assert {'ours, fast', 'onnxruntime'} <= set(model['milliseconds'])
    assert all(time > 0 for time in model['milliseconds'].values() if isinstance(time, float))
    printed = capsys.readouterr().out
    assert '| calibration.pth | onnxruntime | 100 | 100 |' in printed and 'ms of an image' in printed


@pytest.mark.parametrize('arguments, code, words', [
    (['--config', 'x.py'], 2, '--config and --checkpoint go together'),
    (['--images', '0'], 2, '--images: expected 1 or more, found 0'),
    (['--models', 'yolo'], 2, "invalid choice: 'yolo'"),
    (['--config', 'absent.py', '--checkpoint', 'absent.pth'], 2, 'absent.py')])
def test_bad_input_ends_with_one_message(arguments, code, words, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == code
    found = capsys.readouterr().err
    assert words in found and 'Traceback' not in found
