"""The readable kernel set: the contract of docs/numerics.md in torch.

Every module of this folder registers its kernels when it is imported, and all of them are imported
here: an op more is a file more.
"""
import importlib
import pkgutil

from mmdet_bpu.kernels.kernel_set import KernelSet, register

REFERENCE = register(KernelSet('reference'))
kernel = REFERENCE.kernel

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{_module.name}')
