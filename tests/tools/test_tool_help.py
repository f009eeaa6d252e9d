"""Every command explains itself."""
import argparse
from pathlib import Path

import pytest

TOOLS = sorted(path.name for path in (Path(__file__).parents[2] / 'tools').glob('*.py'))


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


@pytest.mark.parametrize('name', TOOLS)
def test_an_unknown_option_ends_with_exit_code_2(tool, name):
    done = tool(name, '--no-such-option')
    assert done.code == 2 and done.err.startswith('usage: ') and not done.out
