"""The library names its parameters; the commands say their options instead."""
import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_bpu.errors import BpuError, exit_on_error, with_options

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / 'mmdet_bpu'
TOOLS = sorted((CHECKOUT / 'tools').glob('*.py'))
STYLE_SHEET = PACKAGE / 'compiler' / 'report_page.py'
# Of functions that no command calls with what a user gave: their callers are Python code.
LIBRARY_ONLY: set[str] = set()


def texts(path: Path) -> list[str]:
    """String constants of a module, joined where they are one f-string; no docstrings."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    documents = {node.body[0].value for node in ast.walk(tree)
                 if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body
                 and isinstance(node.body[0], ast.Expr)}
    found, inside = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part for part in node.values if isinstance(part, ast.Constant)]
            inside.update(parts)
            found.append('...'.join(part.value for part in parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) \
                and node not in documents and node not in inside:
            found.append(node.value)
    return found


SOURCES = [path for path in sorted(PACKAGE.rglob('*.py'))
           if '.mim' not in path.parts and path not in (STYLE_SHEET, PACKAGE / 'command_line.py')
           and not path.stem.endswith('_command')]


def options_of(tool: Path) -> dict[str, str]:
    """Parameter -> option of a command."""
    return runpy.run_path(str(tool))['main'].options


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_option_of_a_command_is_in_the_library_s_words(path):
    """A whole command line to run, such as tools/x.py --y, may be named."""
    options = [text for text in texts(path)
               if re.search(r'(?<![\w-])--[a-z][a-z-]+', re.sub(r'tools/\w+\.py.*|var\(--\w+\)', '', text))]
    # What is given to argparse by a parser of the library's own.
    assert [text for text in options if text != '--options'] == []


def test_every_parameter_that_the_library_names_is_an_option_of_some_command():
    named = {name for path in SOURCES for text in texts(path)
             for name in re.findall(r'\bparameter (\w+)', text)}
    known = set().union(*(options_of(tool) for tool in TOOLS))
    assert named - known == LIBRARY_ONLY
    assert {'out_dir', 'on_error', 'load_from'} <= named


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.name)
def test_options_that_a_command_speaks_of_are_its_own(tool):
    verbs = runpy.run_path(str(tool)).get('COMMANDS', {})
    shown = ''.join(subprocess.run([sys.executable, tool, *words, '--help'], text=True,
                                   capture_output=True).stdout for words in ([], *zip(verbs)))
    for option in options_of(tool).values():
        assert re.search(rf'{option}\b', shown), option


OPTIONS = {'out_dir': '--out', 'on_error': '--on-error', 'resume': '--resume'}


@pytest.mark.parametrize('message, shown', [
    ('parameter out_dir: x is a file', '--out: x is a file'),
    ("leave them out with parameter on_error='skip', or stop", 'leave them out with --on-error skip, '
     'or stop'),
    ('go on with parameter resume=True', 'go on with --resume'),
    ('parameter resume excludes parameter out_dir=DIR', '--resume excludes --out DIR'),
    ('parameter march: unknown', 'parameter march: unknown'),
    ('the parameters of parameterless', 'the parameters of parameterless')])
def test_a_parameter_is_shown_as_the_option_with_its_value(message, shown):
    assert with_options(message, OPTIONS) == shown


def test_a_user_s_error_ends_with_code_2_and_one_message(capsys):

    @exit_on_error('on_error', out_dir='--out')
    def main():
        raise BpuError("parameter out_dir: full; try parameter on_error='skip'")

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == 'error: --out: full; try --on-error skip\n'


def test_a_program_error_keeps_its_traceback():

    @exit_on_error()
    def main():
        raise KeyError('x')

    with pytest.raises(KeyError):
        main()
