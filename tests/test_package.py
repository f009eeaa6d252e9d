"""What is inside the built package, and that ``mim`` finds it there."""
import os
import subprocess
import sys
import zipfile
from collections import Counter
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest

import mmdet_bpu

CHECKOUT = Path(__file__).resolve().parents[1]


def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def relative_files(folder: Path) -> set[str]:
    return {path.relative_to(folder.parent).as_posix() for path in folder.rglob('*')
            if path.is_file() and '__pycache__' not in path.parts and '.mim' not in path.parts}


def build(source: Path, hook: str, target: Path) -> Path:
    """Call a PEP 517 hook (``build_wheel``, ``build_sdist``) in ``source``; returns the archive."""
    target.mkdir()
    code = f'from setuptools import build_meta; build_meta.{hook}({str(target)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=source, check=True, capture_output=True)
    return next(target.iterdir())


def test_wheel_holds_every_file_of_the_package(wheel, source_copy):
    assert relative_files(source_copy / 'mmdet_bpu') <= wheel_names(wheel)


def test_wheel_carries_what_mim_reads(wheel, source_copy):
    expected = {'mmdet_bpu/.mim/model-index.yml'}
    for folder in ('configs', 'tools'):
        expected |= {f'mmdet_bpu/.mim/{name}' for name in relative_files(source_copy / folder)}
    names = wheel_names(wheel)
    assert {name for name in names if name.startswith('mmdet_bpu/.mim/')} == expected
    with zipfile.ZipFile(wheel) as archive:
        for name in expected:
            source = source_copy / name.removeprefix('mmdet_bpu/.mim/')
            assert archive.read(name) == source.read_bytes(), name


def test_wheel_holds_nothing_else(wheel):
    roots = {PurePosixPath(name).parts[0] for name in wheel_names(wheel)}
    assert roots == {'mmdet_bpu', f'mmdet_bpu-{mmdet_bpu.__version__}.dist-info'}
    assert not [name for name in wheel_names(wheel) if '__pycache__' in name]


def test_wheel_built_from_the_source_distribution_is_the_same(wheel, source_copy, tmp_path):
    archive = build(source_copy, 'build_sdist', tmp_path / 'sdist')
    subprocess.run(['tar', 'xzf', archive, '-C', tmp_path], check=True)
    unpacked = tmp_path / archive.name.removesuffix('.tar.gz')
    rebuilt = build(unpacked, 'build_wheel', tmp_path / 'wheel')
    assert wheel_names(rebuilt) == wheel_names(wheel)


def test_a_module_left_by_an_earlier_build_is_not_packed(source_copy, tmp_path):
    stale = source_copy / 'build' / 'lib' / 'mmdet_bpu' / 'removed_module.py'
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.write_text('')
    names = wheel_names(build(source_copy, 'build_wheel', tmp_path / 'wheel'))
    assert 'mmdet_bpu/removed_module.py' not in names


def test_mim_can_tell_every_config_by_its_base_name(wheel):
    """mim takes the only file of that name in the whole package, or refuses."""
    names = [PurePosixPath(name) for name in wheel_names(wheel)]
    count = Counter(name.name for name in names)
    configs = [name for name in names if name.is_relative_to('mmdet_bpu/.mim/configs')]
    assert [str(name) for name in configs if count[name.name] > 1] == []


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in (CHECKOUT / 'mmdet_bpu').rglob('*.py')
               if '.mim' not in path.parts}
    assert [str(folder) for folder in folders if not (folder / '__init__.py').is_file()] == []


def test_installing_never_puts_one_kind_of_mmcv_over_another(wheel):
    """mmcv, mmcv-lite and onedl-mmcv share an import name: only the extras name one of them."""
    with zipfile.ZipFile(wheel) as archive:
        name = f'mmdet_bpu-{mmdet_bpu.__version__}.dist-info/METADATA'
        metadata = Parser().parsestr(archive.read(name).decode())
    required = metadata.get_all('Requires-Dist')
    always = [line for line in required if 'extra ==' not in line]
    assert always and not [line for line in always if line.startswith(('mm', 'onedl'))]
    assert any(line.startswith('mmcv-lite') and 'lite' in line for line in required)
    assert any(line.startswith('mmcv<') and 'mim' in line for line in required)


def test_pins_fit_the_ranges():
    from packaging.requirements import Requirement
    pinned = {}
    for line in requirement_lines('constraints'):
        requirement = Requirement(line)
        pinned[requirement.name.lower()] = str(requirement.specifier).removeprefix('==')
    for name in ('runtime', 'lite', 'demo', 'tests', 'turbo'):
        for line in requirement_lines(name):
            requirement = Requirement(line)
            assert pinned[requirement.name.lower()] in requirement.specifier, line


def requirement_lines(name: str) -> list[str]:
    lines = (CHECKOUT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def test_model_index_names_configs_that_exist():
    load_model_index = pytest.importorskip('modelindex.load_model_index')
    index = load_model_index.load(str(CHECKOUT / 'model-index.yml'))
    index.build_models_with_collections()
    configs = [model.config for model in index.models]
    assert configs and [name for name in configs if not (CHECKOUT / name).is_file()] == []


def test_mim_finds_the_models_of_the_installed_package(installed_python, installed_environment,
                                                       tmp_path):
    pytest.importorskip('mim', reason='openmim is not installed')
    code = 'from mim.cli import cli; cli()'
    done = subprocess.run([installed_python, '-c', code, 'search', 'mmdet_bpu'], cwd=tmp_path,
                          env=installed_environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'config id: deformable-detr_r50_bpu-qat' in done.stdout


def test_installed_package_is_imported_from_its_own_folder(installed_python, tmp_path,
                                                           installed_environment):
    code = 'import mmdet_bpu; print(mmdet_bpu.__file__)'
    done = subprocess.run([installed_python, '-c', code], cwd=tmp_path, text=True,
                          env=installed_environment, capture_output=True, check=True)
    assert os.path.realpath(done.stdout.strip()).startswith(
        os.path.realpath(installed_python.parents[1]))
