"""A ``.hbm`` runs, and its host code too, where there is no OpenMMLab and no xDSL."""
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmdet_bpu.compiler.compile import write_hbm
from mmdet_bpu.executors import HbmSimulator

ABSENT = '''
import importlib.abc
import sys

ABSENT = ('mmdet', 'mmengine', 'mmcv', 'xdsl')


class Absent(importlib.abc.MetaPathFinder):

    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ABSENT:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)


sys.meta_path.insert(0, Absent())
'''
RUN = ABSENT + '''
import numpy as np
import torch

import mmdet_bpu.executors
import mmdet_bpu.runtime

simulator = mmdet_bpu.executors.HbmSimulator(sys.argv[1])
image, = simulator.inputs
generator = torch.Generator().manual_seed(0)
pixels = torch.randint(-128, 128, image.shape, generator=generator).to(torch.int8)
np.savez(sys.argv[2], image=pixels.numpy(), **{
    name: value.numpy() for name, value in simulator.run({image.name: pixels}).items()})
loaded = {name.split('.')[0] for name in sys.modules}
assert not loaded & set(ABSENT), loaded
'''
IMPORT_ALL = ABSENT + '''
import importlib
import pkgutil

for name in ('program', 'kernels', 'executors', 'runtime'):
    package = importlib.import_module(f'mmdet_bpu.{name}')
    for module in pkgutil.walk_packages(package.__path__, f'mmdet_bpu.{name}.'):
        importlib.import_module(module.name)
'''


def python(code, *arguments):
    return subprocess.run([sys.executable, '-c', code, *map(str, arguments)], text=True,
                          capture_output=True, timeout=300)


def test_a_hbm_runs_without_openmmlab_and_xdsl(detector, tmp_path):
    write_hbm(detector, tmp_path / 'model.hbm', 'nash-e')
    done = python(RUN, tmp_path / 'model.hbm', tmp_path / 'outputs.npz')
    assert done.returncode == 0, done.stderr
    found = dict(np.load(tmp_path / 'outputs.npz'))
    expected = HbmSimulator(tmp_path / 'model.hbm').run(
        {'image': torch.from_numpy(found.pop('image'))})
    assert set(found) == set(expected) == set(detector.outputs)
    for name, value in expected.items():
        assert np.array_equal(found[name], value.numpy()) and len(np.unique(found[name])) > 50


def test_every_module_of_the_lean_packages_imports_there():
    done = python(IMPORT_ALL)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('module', ['mmdet_bpu.engine', 'mmdet_bpu.hbir.text'])
def test_the_finder_really_hides_them(module):
    done = python(f'{ABSENT}\nimport {module}')
    assert done.returncode == 1 and 'No module named' in done.stderr
