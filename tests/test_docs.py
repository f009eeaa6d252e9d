"""What the documents say exists: links, files, commands with their options, Python code."""
import argparse
import ast
import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*CHECKOUT.glob('*.md'), *CHECKOUT.glob('docs/*.md')])
TOOLS = sorted((CHECKOUT / 'tools').glob('*.py'))
NAMES = {path: path.relative_to(CHECKOUT).as_posix() for path in (*DOCUMENTS, *TOOLS)}
FENCE = re.compile(r'^```(\w*)\n(.*?)^```', re.MULTILINE | re.DOTALL)


def text_of(path: Path) -> str:
    """A document, or the docstring of a tool."""
    text = path.read_text(encoding='utf-8')
    return text if path.suffix == '.md' else ast.get_docstring(ast.parse(text))


def prose_of(path: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r'^    .*$', '', FENCE.sub('', text_of(path)), flags=re.MULTILINE)


def blocks_of(path: Path, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(text_of(path)) if name == language]


def commands_of(path: Path) -> list[list[str]]:
    """Words of every command line, fenced or indented, that starts one of the tools.

    ``mim train mmdet_bpu`` starts ``tools/train.py``.
    """
    text = text_of(path)
    indented = '\n'.join(re.findall(r'^    (.*)$', FENCE.sub('', text), re.MULTILINE))
    code = re.sub(r'\\\n\s*', '', '\n'.join([*blocks_of(path, 'bash'), indented]))
    commands = []
    for line in code.splitlines():
        line = line.replace('mim train mmdet_bpu', 'tools/train.py')
        line = re.split(r'\s{3,}', line)[0]  # what it does may stand beside it
        found = re.search(r'(?:^|\s)(tools/\w+\.py\b.*)', line)
        if found:
            commands.append(shlex.split(found.group(1), comments=True))
    return commands


def every(get) -> list:
    """Test parameters: each thing that ``get`` finds in a document, under the document's name."""
    return [pytest.param(path, item, id=f'{NAMES[path]}-{k}')
            for path in DOCUMENTS for k, item in enumerate(get(path))]


def slug(heading: str) -> str:
    """Anchor that a repository's page gives a heading."""
    return re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-')


@pytest.mark.parametrize('path', DOCUMENTS, ids=NAMES.get)
def test_links_lead_somewhere(path):
    for target in re.findall(r'\]\(([^)\s]+)\)', prose_of(path)):
        if '://' in target:
            continue
        name, _, anchor = target.partition('#')
        linked = path.parent / name if name else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r'^#+ (.*)$', linked.read_text(encoding='utf-8'), re.MULTILINE)
            assert anchor in map(slug, headings), target


@pytest.mark.parametrize('path', DOCUMENTS, ids=NAMES.get)
def test_files_of_the_repository_that_are_named_exist(path):
    folders = 'mmdet_bpu|configs|tools|docs|tests|benchmarks|requirements'
    for name in re.findall(rf'`((?:{folders})/[\w./*-]*)`', prose_of(path)):
        assert list(CHECKOUT.glob(name.rstrip('/'))), name


@pytest.mark.parametrize('path', DOCUMENTS, ids=NAMES.get)
def test_no_path_of_somebodys_machine(path):
    assert re.findall(r'(?<![\w.])/(?:home|root|opt|work|tmp|Users)/\S*', text_of(path)) == []


@pytest.mark.parametrize('path, code', every(lambda path: blocks_of(path, 'python')))
def test_python_code_names_what_exists(path, code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith('mmdet_bpu'):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f'{node.module}.{alias.name}'


def configs_of(path: Path) -> list[str]:
    """Python blocks that only assign: they are configs."""
    return [code for code in blocks_of(path, 'python')
            if all(isinstance(node, ast.Assign) for node in ast.parse(code).body)]


@pytest.mark.parametrize('path, code', every(configs_of))
def test_configs_hold_known_settings_and_types(path, code, tmp_path):
    from mmdet import registry

    import mmdet_bpu.registration  # noqa: F401
    from mmdet_bpu.engine.settings import validate_settings
    from mmdet_bpu.quantization.fake_quant import QUANTIZERS
    from mmdet_bpu.quantization.observers import OBSERVERS
    (tmp_path / 'config.py').write_text(code)
    config = runpy.run_path(str(tmp_path / 'config.py'))
    if 'bpu' in config:
        validate_settings({'stage': 'qat', **config['bpu']})
    known = (registry.DATASETS, registry.HOOKS, registry.LOOPS, registry.METRICS, registry.MODELS,
             registry.TRANSFORMS, registry.VISBACKENDS, registry.VISUALIZERS, OBSERVERS, QUANTIZERS)
    for kind in re.findall(r"\btype='(\w+)'", code):
        assert any(kind in kinds for kinds in known), kind


class Parsed(BaseException):
    """Ends a tool where its arguments are read."""


@pytest.mark.parametrize('path, command', [
    pytest.param(path, command, id=f'{NAMES[path]}-{k}')
    for path in (*DOCUMENTS, *TOOLS) for k, command in enumerate(commands_of(path))])
def test_commands_have_the_options_that_they_are_shown_with(path, command, monkeypatch, capsys):
    parse_args = argparse.ArgumentParser.parse_args

    def read(parser, *arguments):
        raise Parsed(parse_args(parser, *arguments))

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', read)
    monkeypatch.setattr(sys, 'argv', command)
    try:
        runpy.run_path(str(CHECKOUT / command[0]), run_name='__main__')
    except Parsed:
        pass
    except SystemExit:
        pytest.fail(capsys.readouterr().err)
    for word in command[1:]:
        if word.startswith('configs/'):
            assert (CHECKOUT / word).is_file(), word
        elif word.startswith('mmdet::'):
            mmdet = Path(importlib.import_module('mmdet').__file__).parent
            assert (mmdet / '.mim' / 'configs' / word.removeprefix('mmdet::')).is_file(), word
