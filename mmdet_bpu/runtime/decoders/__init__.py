"""One file per way to turn a head's raw outputs into boxes; its name is the contract's family.

Each has ``FACTS``, what the contract must tell it (see :mod:`mmdet_bpu.runtime.facts`), and

    decode(tree, facts) -> Candidates

where ``tree`` holds the dequantized outputs, float32, nested as the head returns them, and
``facts`` is the contract's post-processing part. Boxes are in px of the network's input and not
suppressed.
"""
import importlib
import pkgutil
from types import ModuleType
from typing import List

from mmdet_bpu.errors import BpuError


def families() -> List[str]:
    """Names of the decoders, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_decoder(family: str) -> ModuleType:
    """The decoder of a family.

    Raises:
        BpuError: There is none of that name.
    """
    if family not in families():
        raise BpuError(f'contract, postprocessing.family: expected one of {", ".join(families())}, '
                       f'found {family!r}')
    return importlib.import_module(f'{__name__}.{family}')
