"""What is particular to a family of detectors. Every module here is imported: families register."""
import importlib
import pkgutil

import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{_module.name}')
