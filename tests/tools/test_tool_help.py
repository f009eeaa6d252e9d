"""Every command explains itself, at once."""
import argparse
import importlib
import resource
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / 'tools'
TOOLS = sorted(path.name for path in FOLDER.glob('*.py'))
CPU_SECONDS = 1.5  # of a command that only parses its arguments
# Runs a command as it is started, then says what of these it has imported.
REPORTING = '''
import atexit, runpy, sys
SLOW = {'torch', 'mmdet', 'mmengine', 'mmcv', 'cv2', 'xdsl', 'lmdb', 'sklearn'}
atexit.register(lambda: print('imported:', *sorted(SLOW & set(sys.modules)), file=sys.stderr))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name='__main__')
'''


@pytest.mark.parametrize('name', TOOLS)
def test_help_describes_the_command_and_each_argument(tool, name, monkeypatch):
    parsers = []
    parse_args = argparse.ArgumentParser.parse_args

    def parse(parser, *arguments):
        parsers.append(parser)
        return parse_args(parser, *arguments)

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse)
    done = tool(name, '--help')
    assert (done.code, done.err) == (0, '')
    parser, = parsers
    assert parser.description
    shown = ' '.join(done.out.split())
    for action in parser._actions:
        if action.help is not argparse.SUPPRESS:
            assert action.help, action.dest
            assert (action.option_strings or [action.metavar or action.dest])[0] in shown


VERBS = [(name, verb) for name in TOOLS
         for verb in runpy.run_path(str(FOLDER / name)).get('COMMANDS', ())]


@pytest.mark.parametrize('name, verb', VERBS)
def test_help_describes_each_argument_of_a_command_of_a_tool(tool, name, verb):
    module = importlib.import_module(runpy.run_path(str(FOLDER / name))['COMMANDS'][verb])
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    done = tool(name, verb, '--help')
    shown = ' '.join(done.out.split())
    assert (done.code, done.err) == (0, '')
    assert module.DESCRIPTION.splitlines()[0] in shown
    for action in parser._actions:
        assert action.help, action.dest
        assert (action.option_strings or [action.metavar or action.dest])[0] in shown


@pytest.mark.parametrize('name', TOOLS)
def test_an_unknown_option_ends_with_exit_code_2(tool, name):
    done = tool(name, '--no-such-option')
    assert done.code == 2 and done.err.startswith('usage: ') and not done.out


def cpu_seconds() -> float:
    """Of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize('name', TOOLS)
@pytest.mark.parametrize('argument, code', [('--help', 0), ('--no-such-option', 2)])
def test_arguments_are_read_before_anything_slow_is_imported(name, argument, code):
    before = cpu_seconds()
    done = subprocess.run([sys.executable, '-c', REPORTING, FOLDER / name, argument], text=True,
                          capture_output=True, timeout=120)
    assert cpu_seconds() - before < CPU_SECONDS
    assert (done.returncode, done.stderr.splitlines()[-1]) == (code, 'imported:')


@pytest.mark.parametrize('name, arguments, words', [
    ('train.py', ['c.py', '--stage', 'int'], "invalid choice: 'int'"),
    ('test.py', ['c.py', 'm.hbm', '--stage', 'onyx'], "invalid choice: 'onyx'"),
    ('deploy_bpu.py', ['c.py', 'c.pth', '--out', 'o', '--march', 'bayes'], "unknown march 'bayes'"),
    ('deploy_bpu.py', ['c.py', 'c.pth', '--out', 'o', '--backend', 'hbdk4'],
     'Without it, --backend sim makes a .hbm for the simulator'),
    ('test.py', ['c.py', 'c.pth', '--stage', 'hbdk4'],
     'error: --stage hbdk4: the package hbdk4 is not installed here'),
    ('analyze_quant.py', ['compare', 'c.py', 'c.pth', '--out', 'o', '--against', 'hbdk4'],
     'error: --against hbdk4: the package hbdk4 is not installed here'),
    ('check_model.py', ['c.py', '--cfg-options', 'a'], "expected KEY=VALUE, found 'a'"),
    ('get_flops.py', ['c.py', '--published', 'AlexNet'], "invalid choice: 'AlexNet'"),
    ('pack_coco_lmdb.py', ['--check-images', 'all'], "invalid choice: 'all'"),
])
def test_a_choice_that_is_none_is_refused_before_anything_slow_is_imported(name, arguments, words):
    done = subprocess.run([sys.executable, '-c', REPORTING, FOLDER / name, *arguments], text=True,
                          capture_output=True, timeout=120)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert done.stderr.splitlines()[-1] == 'imported:'
