"""Version bounds and the stand-in for mmcv's compiled operators."""
import importlib.machinery
import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_bpu.compat import ExtStandIn, check_versions, has_compiled_ext, installed_version
from mmdet_bpu.errors import BpuError

OPENMMLAB = {'torch': '2.13.0+cpu', 'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmdet': '3.3.0'}
ONEDL = {'torch': '2.13.0', 'mmengine': '0.10.12', 'mmcv': '2.3.6', 'mmdet': '3.5.1'}


def run_python(code: str, *paths: Path) -> str:
    """Standard output of a new Python process with ``paths`` in front of its import path."""
    path = os.pathsep.join([*map(str, paths), os.environ['PYTHONPATH']])
    done = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': path},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write_package(folder: Path, name: str, version_py: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / '__init__.py').write_text('raise ImportError("must not be imported")')
    (folder / name / 'version.py').write_text(version_py)
    return folder / name


@pytest.mark.parametrize('versions', [OPENMMLAB, ONEDL], ids=['openmmlab', 'onedl'])
def test_tested_families_of_packages_are_accepted(versions):
    check_versions(versions)


@pytest.mark.parametrize('name, found, words', [
    ('torch', '2.5.1', ['torch: expected >=2.6,<3, found 2.5.1']),
    ('mmengine', '0.10.4', ['mmengine: expected >=0.10.7,<0.11, found 0.10.4']),
    ('mmcv', '1.7.2', ['mmcv: expected', 'found 1.7.2', 'mmcv-lite==2.1.0']),
    ('mmdet', '2.28.2', ['mmdet: expected >=3.3.0,<3.6, found 2.28.2']),
    ('mmdet', None, ['mmdet: expected', 'found no such package', 'pip install "mmdet==3.3.0"']),
    ('mmcv', 'nightly', ['mmcv: expected', 'found nightly']),
])
def test_a_version_out_of_bounds_is_named_with_what_to_install(name, found, words):
    with pytest.raises(BpuError) as error:
        check_versions({**OPENMMLAB, name: found})
    for word in words:
        assert word in str(error.value)


def test_all_complaints_come_at_once():
    with pytest.raises(BpuError, match='(?s)torch: expected.*mmdet: expected'):
        check_versions({**OPENMMLAB, 'torch': '1.13.1', 'mmdet': '3.2.0'})


def test_mmdet_3_3_is_not_paired_with_an_mmcv_that_it_refuses():
    with pytest.raises(BpuError, match='mmcv: expected >=2.1.0,<2.2.0, found 2.2.0'):
        check_versions({**OPENMMLAB, 'mmcv': '2.2.0'})


def test_version_is_read_from_a_package_without_importing_it(tmp_path, monkeypatch):
    write_package(tmp_path, 'plain_package', "__version__ = '1.2.3'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_version('plain_package') == '1.2.3'


def test_version_of_a_fork_is_that_of_the_distribution_it_names(tmp_path, monkeypatch):
    write_package(tmp_path, 'forked_package',
                  "from importlib.metadata import version\n\n__version__ = version('onedl-fork')\n")
    metadata = tmp_path / 'onedl_fork-4.5.6.dist-info' / 'METADATA'
    metadata.parent.mkdir()
    metadata.write_text('Metadata-Version: 2.1\nName: onedl-fork\nVersion: 4.5.6\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_version('forked_package') == '4.5.6'


def test_an_absent_package_has_no_version():
    assert installed_version('a_package_that_nobody_installs') is None


def test_importing_the_package_imports_neither_torch_nor_the_openmmlab_packages():
    code = ('import sys, mmdet_bpu.openmmlab; '
            'print([n for n in ("torch", "mmengine", "mmcv", "mmdet") if n in sys.modules])')
    assert run_python(code) == '[]'


def test_import_ends_with_the_complaint_when_mmcv_is_too_old(tmp_path):
    write_package(tmp_path, 'mmcv', "__version__ = '1.7.2'\n")
    code = ('try:\n    import mmdet_bpu.openmmlab\n'
            'except ValueError as error:\n    print(type(error).__name__, error)')
    assert 'found 1.7.2' in run_python(code, tmp_path)


def test_compiled_operators_are_left_alone(tmp_path):
    """A stand-in must never hide the extension of full mmcv."""
    package = write_package(tmp_path, 'mmcv', "__version__ = '2.1.0'\n")
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (package / f'_ext{suffix}').write_bytes(b'')
    code = ('import sys, mmdet_bpu; from mmdet_bpu.compat import has_compiled_ext; '
            'print(has_compiled_ext(), "mmcv._ext" in sys.modules)')
    assert run_python(code, tmp_path) == 'True False'


class TestStandIn:

    def test_operator_raises_an_error_that_names_it_and_the_remedy(self):
        with pytest.raises(RuntimeError, match=r"'roi_align_forward'.*Install full mmcv"):
            ExtStandIn().roi_align_forward(1, size=2)

    @pytest.mark.parametrize('name', ['__file__', '__path__', '__wrapped__', '_private'])
    def test_names_that_are_no_operators_do_not_exist(self, name):
        with pytest.raises(AttributeError, match=name):
            getattr(ExtStandIn(), name)

    def test_build_queries_answer_so_that_environment_reports_work(self):
        assert 'mmcv-lite' in ExtStandIn().get_compiler_version()
        assert 'mmcv-lite' in ExtStandIn().get_compiling_cuda_version()

    def test_inspection_that_walks_the_loaded_modules_survives_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, 'mmcv._ext', ExtStandIn())
        assert inspect.getmodule(ExtStandIn) is sys.modules['mmdet_bpu.compat']
        assert inspect.getmodule(inspect.currentframe()) is not None

    def test_it_is_found_as_a_module_that_nothing_can_load(self, monkeypatch):
        monkeypatch.setitem(sys.modules, 'mmcv._ext', ExtStandIn())
        spec = importlib.util.find_spec('mmcv._ext')
        assert spec.name == 'mmcv._ext' and spec.loader is None


NEEDS_LITE = pytest.mark.skipif(has_compiled_ext(),
                                reason='full mmcv is installed: its own operators are used')


@NEEDS_LITE
@pytest.mark.parametrize('first', ['import mmdet_bpu.openmmlab, torch', 'import torch, mmdet_bpu.openmmlab',
                                   'import mmcv, mmdet_bpu.openmmlab'])
def test_mmcv_ops_import_in_any_order_and_refuse_when_called(first):
    code = (f'{first}\n'
            'import mmcv.ops, torch\n'
            'try:\n    mmcv.ops.nms_match(torch.rand(2, 5), 0.5)\n'
            'except RuntimeError as error:\n    print(error)')
    assert "mmcv operator 'nms_match' was called" in run_python(code)


@NEEDS_LITE
def test_mmcv_still_knows_that_it_has_no_operators():
    code = ('import mmdet_bpu.openmmlab\nfrom mmengine.utils.dl_utils import mmcv_full_available\n'
            'print(mmcv_full_available())')
    assert run_python(code) == 'False'
