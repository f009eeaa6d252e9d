"""The fast kernel set: compiled loops over cache-sized blocks, bit-equal to ``reference``.

Its kernels are compiled by numba, an optional extra. Without it the set is empty and the reference
computes everything; :attr:`KernelSet.notes` says so. Modules of this folder register kernels and
fusers when they are imported; fusers are asked in the order of the modules' names.
"""
import importlib
import importlib.util
import pkgutil

from mmdet_bpu.kernels.kernel_set import KernelSet, register

FAST = register(KernelSet('fast'))

if importlib.util.find_spec('numba') is None:
    FAST.notes.append('numba is not installed: the reference kernels compute everything, slower '
                      '(pip install "mmdet_bpu[fast]")')
else:
    for _module in pkgutil.iter_modules(__path__):
        importlib.import_module(f'{__name__}.{_module.name}')
