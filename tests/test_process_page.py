"""docs/process.md names every file that keeps or changes something of the process.

The source is read for what does so: assignments to ``__class__`` and ``sys.modules``, caches,
module-level state (names in lower case), and the functions of torch, Python, OpenCV and the frameworks
that set something for the whole process.
"""
import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / 'mmdet_bpu'
PAGE = (CHECKOUT / 'docs' / 'process.md').read_text()

SETTERS = {
    'register_at_fork', 'register_module_forward_pre_hook', 'register_module_forward_hook',
    'set_num_threads', 'setNumThreads', 'set_float32_matmul_precision', 'set_default_dtype',
    'set_rng_state', 'setstate', 'set_state', 'seed', 'init_default_scope', 'init_process_group',
    'register_backend', 'pthread_sigmask', 'signal', 'simplefilter', 'filterwarnings', 'chdir',
    'umask', 'putenv', 'basicConfig', 'seterr', 'apply_repairs', 'register_mmdet'}
CACHES = {'cache', 'lru_cache'}
# Methods of ours that share a name with one above: they set the state of an object.
OF_OBJECTS = {'quantization/state.py', 'quantization/quantized_detector.py',
              'quantization/product_inputs.py', 'quantization/distillation/reached.py',
              'quantization/block_rounding.py', 'engine/model_copies.py'}


def _last(node: ast.AST) -> str:
    return getattr(node, 'attr', getattr(node, 'id', ''))


def effects(tree: ast.Module) -> set[str]:
    """What of a module outlives a call, by name."""
    found = set()
    for statement in tree.body:
        if not isinstance(statement, (ast.Assign, ast.AnnAssign)) \
                or isinstance(statement.value, ast.Attribute):  # another name of what is there
            continue
        for target in getattr(statement, 'targets', [getattr(statement, 'target', None)]):
            if isinstance(target, ast.Name) and re.fullmatch(r'_?[a-z][a-z_]*', target.id):
                found.add(target.id)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last(node.func) in SETTERS:
            found.add(_last(node.func))
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            for target in getattr(node, 'targets', [getattr(node, 'target', None)]):
                owner = target.value if isinstance(target, ast.Subscript) else target
                if ast.unparse(owner) in ('sys.modules', 'os.environ', 'sys.path') \
                        or _last(owner) == '__class__':
                    found.add(ast.unparse(target))
        for decorator in getattr(node, 'decorator_list', ()):
            if _last(getattr(decorator, 'func', decorator)) in CACHES:
                found.add(f'cache of {node.name}')
    return found


def files_on_the_page() -> set[str]:
    """Paths in the column `where`, a name without a folder in that of the one before it."""
    paths = set()
    for row in PAGE.splitlines():
        if not row.startswith('| ') or row.startswith('| what'):
            continue
        folder = ''
        for name in re.findall(r'`([\w./]+)`', row.split(' | ')[1]):
            if not name.endswith('.py'):
                name = f'{name.partition(".")[0]}.py' if '/' not in name else f'{name}.py'
            name = f'{folder}/{name}' if folder and '/' not in name else name
            folder = name.rpartition('/')[0]
            paths.add(name)
    return paths


FOUND = {str(path.relative_to(PACKAGE)): effects(ast.parse(path.read_text()))
         for path in sorted(PACKAGE.rglob('*.py')) if '.mim' not in path.parts}


@pytest.mark.parametrize('path', [path for path in FOUND if FOUND[path]])
def test_what_outlives_a_call_is_on_the_page(path):
    if path in OF_OBJECTS:
        assert FOUND[path] <= {'set_state'}, FOUND[path]
        return
    assert path in files_on_the_page(), FOUND[path]


def test_every_file_on_the_page_is_there():
    missing = [name for name in files_on_the_page()
               if not (PACKAGE / name).is_file()]
    assert not missing


@pytest.mark.parametrize('source, expected', [
    ('import sys\nsys.modules["a"] = 1', {"sys.modules['a']"}),
    ('def f(m):\n    m.__class__ = int', {'m.__class__'}),
    ('_seen = {}', {'_seen'}),
    ('TABLE = {}\n_ROWS = ()', set()),
    ('import functools\n@functools.cache\ndef f(): pass', {'cache of f'}),
    ('import torch\ndef f():\n    torch.set_num_threads(1)', {'set_num_threads'}),
])
def test_the_reader_sees(source, expected):
    assert effects(ast.parse(source)) == expected
