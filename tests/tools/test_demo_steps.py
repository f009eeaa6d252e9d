"""The demo runs a step once, reuses what is there, and reports what it measured."""
import importlib.util
import json
from pathlib import Path

import pytest

from mmdet_bpu.errors import BpuError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def demo_tool():
    spec = importlib.util.spec_from_file_location('demo_tool', ROOT / 'tools' / 'demo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo(demo_tool, tmp_path):
    return demo_tool.Demo(tmp_path, tmp_path / 'data')


def writes(path, **given):
    """An action that writes ``path`` and counts how often it ran."""

    def action():
        action.runs += 1
        path.write_text('made')
        return given

    action.runs = 0
    return action


def raises(error):
    """An action that ends as ``error`` does."""

    def action():
        raise error

    return action


def test_a_step_runs_once_and_is_reused_by_a_second_run_which_says_so(demo_tool, demo, tmp_path,
                                                                      capsys):
    result = tmp_path / 'result'
    action = writes(result, mAP=0.5)
    demo.step('one', result, action)
    again = demo_tool.Demo(tmp_path, tmp_path / 'data').step('one', result, action)
    assert action.runs == 1
    assert again['mAP'] == 0.5 and again['seconds'] >= 0
    assert '[one] reused' in capsys.readouterr().out


def test_a_step_whose_result_was_removed_runs_again(demo, tmp_path):
    result = tmp_path / 'result'
    action = writes(result)
    demo.step('one', result, action)
    result.unlink()
    demo.step('one', result, action)
    assert action.runs == 2


def test_steps_after_one_that_ran_run_too_because_they_are_made_of_its_result(demo_tool, demo,
                                                                                tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    demo.step('one', first, writes(first))
    demo.step('two', second, writes(second))
    first.unlink()
    again = demo_tool.Demo(tmp_path, tmp_path / 'data')
    action = writes(second)
    again.step('one', first, writes(first))
    again.step('two', second, action)
    assert action.runs == 1


def test_a_step_that_was_killed_when_it_ran_again_is_not_taken_for_done(demo_tool, demo, tmp_path):
    """Its former result is still there, made of something else."""
    first, second = tmp_path / 'first', tmp_path / 'second'
    demo.step('one', first, writes(first))
    demo.step('two', second, writes(second))
    first.unlink()
    killed = demo_tool.Demo(tmp_path, tmp_path / 'data')
    killed.step('one', first, writes(first))
    with pytest.raises(KeyboardInterrupt):
        killed.step('two', second, raises(KeyboardInterrupt))
    again = demo_tool.Demo(tmp_path, tmp_path / 'data')
    action = writes(second)
    again.step('one', first, writes(first))
    again.step('two', second, action)
    assert action.runs == 1


def commands_of_training(demo, monkeypatch):
    """The arguments of each command that the training of the float stage starts."""
    commands = []

    def run(name, tool, *arguments):
        commands.append([str(argument) for argument in arguments])
        epoch = demo.folder / 'float' / 'epoch_1.pth'
        epoch.parent.mkdir(exist_ok=True)
        epoch.write_text('weights')
        (epoch.parent / 'last_checkpoint').write_text(str(epoch))

    monkeypatch.setattr(demo, 'run', run)
    demo.train('float', 'digits_float.py', demo.folder / 'source.pth')
    return commands


def test_an_interrupted_training_goes_on_and_another_begins_from_its_source(
        demo_tool, demo, tmp_path, monkeypatch):
    first, = commands_of_training(demo, monkeypatch)
    assert '--resume' not in first and f'load_from={tmp_path}/source.pth' in first
    # Killed behind the first epoch.
    (tmp_path / 'float' / 'final.pth').replace(tmp_path / 'float' / 'epoch_1.pth')
    resumed, = commands_of_training(demo_tool.Demo(tmp_path, tmp_path / 'data'), monkeypatch)
    assert '--resume' in resumed


def test_a_training_whose_source_was_made_again_is_not_resumed(demo_tool, demo, tmp_path,
                                                              monkeypatch):
    commands_of_training(demo, monkeypatch)
    (tmp_path / 'float' / 'final.pth').replace(tmp_path / 'float' / 'epoch_1.pth')
    again = demo_tool.Demo(tmp_path, tmp_path / 'data')
    again.step('one', tmp_path / 'source.pth', writes(tmp_path / 'source.pth'))
    assert '--resume' not in commands_of_training(again, monkeypatch)[0]


def test_a_step_that_writes_nothing_is_an_error(demo, tmp_path):
    with pytest.raises(BpuError, match='one ended without writing'):
        demo.step('one', tmp_path / 'absent', dict)


@pytest.mark.parametrize('forks', [True, False], ids=['forked', 'alone'])
def test_a_failing_command_is_named_with_its_output(demo_tool, demo, monkeypatch, forks):
    monkeypatch.setattr(demo_tool, 'FORKS', forks)
    with pytest.raises(BpuError, match='(?s)exit code 2.*--no-such-option'):
        demo.run('flops', 'get_flops.py', '--no-such-option')


def test_a_forked_command_has_its_arguments_and_writes_to_its_log(demo, tmp_path):
    demo.run('digits', 'make_digits.py', '--out', tmp_path / 'digits', '--num-train', '1',
             '--num-val', '1')
    assert f'digits: made {tmp_path}/digits (1 train, 1 val' in (tmp_path / 'digits.log').read_text()


def test_a_damaged_state_file_says_what_to_remove(demo_tool, tmp_path):
    (tmp_path / 'steps.json').write_text('{"half')
    with pytest.raises(BpuError, match='steps.json is damaged.*remove'):
        demo_tool.Demo(tmp_path, tmp_path / 'data')


def test_the_summary_holds_every_stage_and_adds_training_and_evaluation_seconds(demo_tool, demo):
    stages = ('float', 'calibration', 'qat', 'int', 'hbm')
    demo.state = {f'test_{s}': dict(mAP=0.1 * i, mAP50=0.2 * i, seconds=2.0)
                  for i, s in enumerate(stages)}
    demo.state['train_float'] = dict(seconds=100.0)
    demo.state['compare'] = dict(int_equals_hbm=True, images=200, qat_vs_int=dict(max_lsb=1),
                                 seconds=1.0)
    summary = demo_tool.summarise(demo, control=False)
    assert set(stages) <= set(summary) and 'float_control' not in summary
    assert summary['seconds']['float'] == 102.0
    assert summary['int_equals_hbm'] is True
    json.dumps(summary)


def test_the_table_lists_stage_map_and_seconds(demo_tool):
    text = demo_tool.table({'int': dict(mAP=0.7011, mAP50=0.9)}, {'int': 12.34})
    assert text.splitlines()[1].split() == ['int', '0.701', '0.900', '12.3']
