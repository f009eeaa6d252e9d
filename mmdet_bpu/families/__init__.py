"""What is particular to a family of detectors. Every module here is imported: families register."""
import mmdet_bpu.openmmlab  # noqa: F401,I001  (before anything of OpenMMLab)

import importlib
import pkgutil


def import_families() -> None:
    """Import every module of this package."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f'{__name__}.{module.name}')


import_families()
