"""The fast kernel set: compiled loops over cache-sized blocks, bit-equal to ``reference``.

Its kernels are compiled by numba, an optional extra. Without it the set is empty and the reference
computes everything; :attr:`KernelSet.notes` says so, and which unit multiplies. Modules of this
folder register kernels and fusers when they are imported; fusers are asked in the order of the
modules' names.
"""
import importlib
import pkgutil

from mmdet_bpu.kernels.compiled_loops import usable
from mmdet_bpu.kernels.kernel_set import KernelSet, register

FAST = register(KernelSet('fast'))
# Modules that cannot be imported where the processor has no unit that they know.
NEED_UNIT = 'product'

if usable():
    from mmdet_bpu.kernels.fast.unit_choice import UNIT, UNIT_INT8
    for _module in pkgutil.iter_modules(__path__):
        if UNIT is not None or not _module.name.startswith(NEED_UNIT):
            importlib.import_module(f'{__name__}.{_module.name}')
    FAST.notes.append(f'products on unit {UNIT_INT8}' if UNIT is not None else
                      'no integer unit known on this processor: products by the reference')
else:
    FAST.notes.append('numba is not installed, or switched off: the reference kernels compute '
                      'everything, slower (pip install "mmdet_bpu[fast]")')
