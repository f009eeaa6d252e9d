"""Build of the package: Python modules, and what ``mim`` looks for in ``mmdet_bpu/.mim``.

``mim train mmdet_bpu ...`` reads configs, tools and the model index inside the installed package.
They are copied there while the wheel is built; the checkout itself stays as it is.
"""
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_FOLDERS = ('configs', 'tools')
MIM_FILES = ('model-index.yml',)


def requirements(name: str) -> list[str]:
    """Requirement specifiers of ``requirements/<name>.txt``, comments left out."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def version() -> str:
    """The version in ``mmdet_bpu/version.py``, read without importing the package."""
    text = (ROOT / 'mmdet_bpu' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE).group(1)


class BuildWithMim(build_py):
    """Build of the modules that starts clean and adds the ``.mim`` folder."""

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            return
        package = Path(self.build_lib, 'mmdet_bpu')
        # An earlier build may have left modules here that no longer exist.
        shutil.rmtree(package, ignore_errors=True)
        super().run()
        mim = package / '.mim'
        for folder in MIM_FOLDERS:
            shutil.copytree(ROOT / folder, mim / folder,
                            ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
        for name in MIM_FILES:
            shutil.copy2(ROOT / name, mim / name)


setup(
    name='mmdet_bpu',
    version=version(),
    description='Take MMDetection detectors to a BPU: float, calibration, QAT, integers, HBIR, hbm',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    packages=find_packages(include=['mmdet_bpu', 'mmdet_bpu.*']),
    include_package_data=True,
    install_requires=requirements('runtime'),
    extras_require={
        'lite': requirements('lite'),
        'mim': requirements('mminstall'),
        'demo': requirements('demo'),
        'fast': requirements('fast'),
        'onnx': requirements('onnx'),
        'tests': requirements('tests'),
        'turbo': requirements('turbo'),
    },
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
