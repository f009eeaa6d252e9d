"""Which package may import which: the floors of docs/architecture.md, drawn from the source.

Every import counts, also those inside functions and under ``TYPE_CHECKING``.
"""
import ast
import re
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / 'mmdet_bpu'

# From the roof down. A module may import its own package and every floor below it; packages of one
# floor do not import each other.
FLOORS = (
    ('tools', ),
    ('command_line', ),
    ('apis', ),
    ('registration', ),
    ('engine', 'backends'),
    ('analysis', ),
    ('lowering', 'quantization'),
    ('graph', ),
    ('families', 'models', 'datasets'),
    ('compiler', ),
    ('hbir', ),
    ('executors', ),
    ('kernels', ),
    ('program', ),
    ('runtime', ),
    ('openmmlab', 'steps', 'output_folder'),
    ('compat', ),
    ('mmcv_operators', ),
    ('errors', 'version', 'choices', 'collector'),
)
FLOOR_OF = {package: index for index, floor in enumerate(FLOORS) for package in floor}
OPENMMLAB = {'mmdet', 'mmengine', 'mmcv'}

# Arrows that are still there, importer -> imported, and why. Shrink it; never add to it.
KNOWN = {}

# Commands take from the package `apis`, `errors`, and these, which are quick to import: how arguments
# are written, what they are chosen from, how progress is shown and a file written.
QUICK_MODULES = {f'mmdet_bpu.{name}' for name in (
    'command_line', 'choices', 'steps', 'output_folder', 'engine.stage_names', 'backends.choice',
    'compiler.march', 'compiler.published', 'lowering.artifact_formats')}


def modules() -> dict[str, Path]:
    """Dotted name -> file, of the package and of the commands (``tools.train``)."""
    found = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(CHECKOUT).with_suffix('').parts
        if '.mim' not in parts:
            found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    found.update({f'tools.{path.stem}': path for path in (CHECKOUT / 'tools').glob('*.py')})
    return found


MODULES = modules()


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports; a name taken from a package is that module, if it is one."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: a relative import'
            for alias in node.names:
                inner = f'{node.module}.{alias.name}'
                names.add(inner if inner in MODULES else node.module)
    return names


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def package_of(module: str) -> str:
    """Its room: the folder under the package, a file at its root, or ``tools``.

    What stands behind a command of ``tools`` in a file of its own is a part of it.
    """
    parts = module.split('.')
    return 'tools' if parts[-1].endswith('_command') else parts[0] if parts[0] == 'tools' else parts[1] if len(parts) > 1 else 'version'


def outside(module: str) -> set[str]:
    """Top-level packages other than ours that a module imports."""
    return {name.split('.')[0] for name in IMPORTS[module]} - {'mmdet_bpu'}


def under(*packages: str) -> list[str]:
    return [name for name in MODULES if package_of(name) in packages]


def test_every_package_has_a_floor():
    assert {package_of(name) for name in MODULES} == set(FLOOR_OF)


def test_no_import_runs_up_or_sideways():
    wrong = {}
    for importer, imported in IMPORTS.items():
        for name in imported & set(MODULES):
            above, below = package_of(importer), package_of(name)
            if above != below and FLOOR_OF[above] >= FLOOR_OF[below]:
                wrong[importer, name] = f'{importer} imports {name}'
    assert sorted(set(wrong) - set(KNOWN)) == []
    assert sorted(set(KNOWN) - set(wrong)) == [], 'these arrows are gone: strike them off KNOWN'


def test_there_is_no_circle_of_modules():
    """Packages that import each other's modules within one room included."""
    seen, done = [], set()

    def visit(name: str) -> None:
        assert name not in seen, ' -> '.join([*seen[seen.index(name):], name])
        if name not in done:
            seen.append(name)
            for imported in sorted(IMPORTS[name] & set(MODULES)):
                visit(imported)
            seen.remove(name)
            done.add(name)

    for name in MODULES:
        visit(name)


def test_commands_import_apis_errors_and_what_arguments_need():
    allowed = {'mmdet_bpu.apis', 'mmdet_bpu.errors'} | QUICK_MODULES
    assert {name: sorted(extra) for name in under('tools')
            if (extra := IMPORTS[name] & set(MODULES) - allowed)} == {}
    assert {name: sorted(extra) for name in under('tools')
            if (extra := outside(name) - set(sys.stdlib_module_names))} == {}


def test_commands_import_apis_after_their_arguments_are_parsed():
    for name in under('tools', 'command_line'):
        tree = ast.parse(MODULES[name].read_text(encoding='utf-8'))
        slow = [ast.unparse(node) for node in tree.body
                if isinstance(node, (ast.Import, ast.ImportFrom)) and 'apis' in ast.unparse(node)]
        assert slow == [], name


def test_what_makes_an_integer_program_calls_no_kernel():
    """Passes use the arithmetic of ``program``."""
    assert [(name, other) for name in under('hbir', 'compiler') for other in IMPORTS[name]
            if other.startswith('mmdet_bpu.kernels')] == []


@pytest.mark.parametrize('package', [p for floor in FLOORS[FLOOR_OF['compiler']:] for p in floor])
def test_from_the_compiler_down_nothing_is_of_openmmlab(package):
    assert [name for name in under(package) if outside(name) & OPENMMLAB] == []


@pytest.mark.parametrize('package', [p for floor in FLOORS[FLOOR_OF['executors']:] for p in floor])
def test_from_the_executors_down_nothing_is_of_xdsl(package):
    assert [name for name in under(package) if 'xdsl' in outside(name)] == []


def test_the_host_of_a_board_needs_numpy_and_cv2_only():
    allowed = {'numpy', 'cv2'} | set(sys.stdlib_module_names)
    assert {name: sorted(extra) for name in under('runtime')
            if (extra := outside(name) - allowed)} == {}


def test_packages_that_use_openmmlab_prepare_the_process_first():
    """``mmdet_bpu.openmmlab`` checks versions and stands in for ``mmcv._ext``."""
    for package in sorted({package_of(name) for name in MODULES if outside(name) & OPENMMLAB}
                          - {'tools'}):
        path = PACKAGE / package / '__init__.py'
        path = path if path.is_file() else PACKAGE / f'{package}.py'
        first = next(node for node in ast.parse(path.read_text(encoding='utf-8')).body
                     if isinstance(node, (ast.Import, ast.ImportFrom)))
        assert ast.unparse(first) == 'import mmdet_bpu.openmmlab', path


def test_the_architecture_document_shows_these_floors():
    text = (CHECKOUT / 'docs' / 'architecture.md').read_text(encoding='utf-8')
    table = text.split('## Packages')[1].split('\n## ')[0]
    rows = [re.findall(r'`(\w+)[./]', row.split('|')[1])
            for row in table.splitlines() if row.startswith('| `')]
    shown = [floor for floor in FLOORS if set(floor) & {name for row in rows for name in row}]
    assert [sorted(row) for row in rows] == [sorted(floor) for floor in shown]
    assert {name for floor in FLOORS[FLOOR_OF['apis']:FLOOR_OF['runtime'] + 1] for name in floor} \
        - {name for row in rows for name in row} == {'registration'}
