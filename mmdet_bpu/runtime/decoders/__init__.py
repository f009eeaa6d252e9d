"""One file per way to turn a head's raw outputs into boxes; its name is the contract's family.

Each has ``FACTS``, what the contract must tell it (see :mod:`mmdet_bpu.runtime.facts`), and

    decode(tree, facts) -> Candidates

where ``tree`` holds the dequantized outputs, float32, nested as the head returns them, and
``facts`` is the contract's post-processing part. Boxes are in px of the network's input and not
suppressed.

A family that only hosts with mmdet serve may keep its decoder in its own file, under
:func:`decoder`.
"""
import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.facts import Kind

Decode = Callable[[List[Any], Dict[str, Any]], Candidates]


@dataclass(frozen=True)
class Decoder:
    """What a file here holds, or what :func:`decoder` was given.

    Attributes:
        FACTS (Mapping[str, Kind]): What the contract must tell.
        decode (Callable): ``(tree, facts) -> Candidates``.
    """
    FACTS: Mapping[str, Kind]
    decode: Decode


_ELSEWHERE: Dict[str, Decoder] = {}


def decoder(family: str, facts: Mapping[str, Kind]) -> Callable[[Decode], Decode]:
    """Decorate the ``decode`` of a family that has no file here.

    Args:
        family (str): Name in the contract.
        facts (Mapping[str, Kind]): What the contract must tell it.

    Raises:
        AssertionError: The family has a decoder already.
    """

    def add(decode: Decode) -> Decode:
        present = _ELSEWHERE.get(family)
        assert family not in _files() and (
            present is None or present.decode.__qualname__ == decode.__qualname__
            and present.decode.__module__ == decode.__module__), f'{family} has a decoder already'
        _ELSEWHERE[family] = Decoder(facts, decode)
        return decode

    return add


def families() -> List[str]:
    """Names of the decoders, sorted."""
    return sorted([*_files(), *_ELSEWHERE])


def load_decoder(family: str) -> Decoder:
    """The decoder of a family.

    Raises:
        BpuError: There is none of that name.
    """
    if isinstance(family, str) and family in _ELSEWHERE:
        return _ELSEWHERE[family]
    if family not in _files():
        raise BpuError(f'contract, postprocessing.family: expected one of {", ".join(families())}, '
                       f'found {family!r}')
    module = importlib.import_module(f'{__name__}.{family}')
    return Decoder(module.FACTS, module.decode)


def _files() -> List[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]
