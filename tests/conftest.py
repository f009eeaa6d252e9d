"""What every test may rely on: one thread, the checkout first, and a real installation."""
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from hypothesis import settings

CHECKOUT = Path(__file__).resolve().parents[1]

# Before any test imports torch: the runner starts one process per core, and results that depend on
# the order of a threaded sum would differ between machines.
for variable in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ.setdefault(variable, '1')
# Tools that tests start as processes import this checkout, not an installed copy.
os.environ['PYTHONPATH'] = str(CHECKOUT)

settings.register_profile('suite', deadline=None, derandomize=True)
settings.load_profile('suite')


@pytest.fixture(scope='session')
def source_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from, so that building leaves the checkout as it is."""
    folder = tmp_path_factory.mktemp('source') / 'mmdet_bpu'
    folder.mkdir()
    for name in ('mmdet_bpu', 'configs', 'tools', 'requirements'):
        shutil.copytree(CHECKOUT / name, folder / name,
                        ignore=shutil.ignore_patterns('__pycache__', '.mim'))
    for path in CHECKOUT.iterdir():
        if path.is_file() and not path.name.startswith('.'):
            shutil.copy2(path, folder)
    return folder


@pytest.fixture(scope='session')
def wheel(source_copy: Path) -> Path:
    """The package's wheel, built without isolation and without network."""
    target = source_copy.parent / 'wheel'
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-index',
                    '--no-build-isolation', '-w', target, source_copy], check=True)
    return next(target.glob('*.whl'))


@pytest.fixture(scope='session')
def installed_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment with a non-editable install of this checkout.

    All other packages are those of the running environment. Start it with ``PYTHONPATH`` removed
    and outside the checkout (see ``installed_environment``), or the checkout shadows the install.
    """
    folder = tmp_path_factory.mktemp('installed')
    venv.create(folder, symlinks=True)
    python = folder / 'bin' / 'python'
    site = Path(sysconfig.get_path('purelib', vars={'base': str(folder)}))
    (site / 'running_environment.pth').write_text(sysconfig.get_path('purelib'))
    subprocess.run([python, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index',
                    '--ignore-installed', wheel],
                   check=True, env=_without_pythonpath())
    return python


@pytest.fixture
def installed_environment() -> dict[str, str]:
    """Environment variables under which ``installed_python`` imports what is installed."""
    return _without_pythonpath()


def _without_pythonpath() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
