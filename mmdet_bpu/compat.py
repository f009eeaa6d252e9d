"""What the package asks of the packages around it: version bounds and ``mmcv._ext``.

Everything here reads files, it imports neither torch nor mmcv: ``import mmdet_bpu`` stays cheap and
works in any import order. Versions come from the ``version.py`` of the importable package rather
than from distribution metadata, because the same import name is served by several distributions
(``mmcv``, ``mmcv-lite``, ``onedl-mmcv``, ...).
"""
import importlib.metadata
import importlib.util
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Callable, Mapping

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from mmdet_bpu.errors import BpuError
from mmdet_bpu.mmcv_operators import OPERATORS, load_operator

# Lower bounds: torch 2.6 is the first that loads checkpoints safely by default, mmengine 0.10.7 the
# first that knows it; mmdet 3.3.0 is OpenMMLab's last release. Upper bounds leave room for the
# onedl forks (mmengine 0.10.12, mmcv 2.3.6, mmdet 3.5.1), which keep the import names.
VERSION_BOUNDS = {
    'torch': '>=2.6,<3',
    'mmengine': '>=0.10.7,<0.11',
    'mmcv': '>=2.1.0,<2.4',
    'mmdet': '>=3.3.0,<3.6',
}
# mmdet 3.3.x asserts mmcv < 2.2.0 when it is imported.
MMCV_BOUND_OF_MMDET_3_3 = '>=2.1.0,<2.2.0'

INSTALL_HINTS = {
    'torch': 'pip install "torch>=2.6"',
    'mmengine': 'pip install "mmengine>=0.10.7,<0.11" (or onedl-mmengine)',
    'mmcv': 'pip install "mmcv-lite==2.1.0" (or full mmcv, or onedl-mmcv with onedl-mmdetection)',
    'mmdet': 'pip install "mmdet==3.3.0" (or onedl-mmdetection)',
}

# A version.py states its version as text, or (the forks) as a distribution to look up.
VERSION_TEXT = re.compile(r"""^__version__\s*(?::[^=]+)?=\s*['"]([^'"]+)['"]""", re.MULTILINE)
VERSION_OF_DISTRIBUTION = re.compile(
    r"""^__version__\s*=\s*version\(['"]([^'"]+)['"]\)""", re.MULTILINE)

EXT_NAME = 'mmcv._ext'
# mmcv's environment report calls these two; they describe the build and compute nothing.
BUILD_QUERIES = ('get_compiler_version', 'get_compiling_cuda_version')


def installed_version(name: str) -> str | None:
    """Version of an importable top-level package, found without importing it.

    Args:
        name (str): Import name, e.g. ``'mmcv'``.

    Returns:
        str | None: The version text, ``''`` if the package does not say, None if it is not there.
    """
    loaded = sys.modules.get(name)
    if loaded is not None and hasattr(loaded, '__version__'):
        return str(loaded.__version__)
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    for folder in spec.submodule_search_locations or ():
        version_file = Path(folder, 'version.py')
        if not version_file.is_file():
            continue
        text = version_file.read_text(encoding='utf-8')
        if match := VERSION_TEXT.search(text):
            return match.group(1)
        if match := VERSION_OF_DISTRIBUTION.search(text):
            return importlib.metadata.version(match.group(1))
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ''


def check_versions(versions: Mapping[str, str | None] | None = None) -> None:
    """Check the versions of torch, mmengine, mmcv and mmdet against :data:`VERSION_BOUNDS`.

    Args:
        versions (Mapping[str, str | None] | None): Import name to version, None for a package that
            is absent. Defaults to what is installed.

    Raises:
        BpuError: Packages are absent or out of bounds. The message lists all of them, with what
            was found and the command that installs a fitting one.
    """
    if versions is None:
        versions = {name: installed_version(name) for name in VERSION_BOUNDS}
    bounds = dict(VERSION_BOUNDS)
    if _within(versions.get('mmdet'), '>=3.3.0,<3.4'):
        bounds['mmcv'] = MMCV_BOUND_OF_MMDET_3_3
    complaints = []
    for name, bound in bounds.items():
        found = versions.get(name)
        if not _within(found, bound):
            complaints.append(f'  {name}: expected {bound}, found {_describe(found)}; '
                              f'run: {INSTALL_HINTS[name]}')
    if complaints:
        raise BpuError('mmdet_bpu cannot work with these packages:\n' + '\n'.join(complaints))


def _within(version: str | None, bound: str) -> bool:
    try:
        return bool(version) and SpecifierSet(bound).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def _describe(version: str | None) -> str:
    if version is None:
        return 'no such package'
    return version or 'a package that does not state its version'


def has_compiled_ext() -> bool:
    """Whether the importable mmcv holds its compiled operators (full mmcv, not mmcv-lite)."""
    loaded = sys.modules.get(EXT_NAME)
    if loaded is not None:
        return not isinstance(loaded, ExtStandIn)
    spec = importlib.util.find_spec('mmcv')
    if spec is None or spec.submodule_search_locations is None:
        return False
    return PathFinder.find_spec(EXT_NAME, spec.submodule_search_locations) is not None


class ExtStandIn(ModuleType):
    """Module that has every operator of ``mmcv._ext`` by name.

    Those of :mod:`mmdet_bpu.mmcv_operators` compute, the others raise when they are called.
    ``mmcv.ops`` asks the extension for its names when it is imported, so with this module
    mmcv-lite's ``mmcv.ops`` imports and whatever is pure PyTorch in it works. The spec has no
    loader, so mmcv's ``check_ops_exist()`` still answers False.
    """

    def __init__(self) -> None:
        super().__init__(EXT_NAME, doc='Stand-in of mmdet_bpu for the compiled operators of mmcv.')
        self.__spec__ = ModuleSpec(EXT_NAME, loader=None, origin='mmdet_bpu stand-in')
        self.__package__ = 'mmcv'

    def __getattr__(self, name: str) -> Callable:
        # Operators never start with an underscore. Tools that walk sys.modules (inspect, copy,
        # torch) probe for special names and must be told that they do not exist.
        if name.startswith('_'):
            raise AttributeError(f'module {EXT_NAME!r} has no attribute {name!r}')
        if name in OPERATORS:
            function = load_operator(name)
        else:
            function = _build_query if name in BUILD_QUERIES else _refusing(name)
        setattr(self, name, function)
        return function


def _build_query() -> str:
    return 'n/a (mmcv-lite)'


def _refusing(name: str) -> Callable:
    def op(*args, **kwargs):
        raise RuntimeError(
            f'mmcv operator {name!r} was called, but the installed mmcv has no compiled operators '
            f'({EXT_NAME}). Install full mmcv instead of mmcv-lite: pip uninstall mmcv-lite, then '
            'pip install "mmcv>=2.1.0,<2.2.0" (it compiles the operators for the installed torch).')

    op.__name__ = op.__qualname__ = name
    op.__doc__ = f'Stand-in for the compiled mmcv operator ``{name}``: raises RuntimeError.'
    return op


def install_ext_stand_in() -> bool:
    """Register :class:`ExtStandIn` as ``mmcv._ext`` where mmcv has no compiled operators.

    Returns:
        bool: True if the stand-in is in place, False if mmcv has the real extension.
    """
    if has_compiled_ext():
        return False
    if EXT_NAME not in sys.modules:
        sys.modules[EXT_NAME] = ExtStandIn()
    return True
