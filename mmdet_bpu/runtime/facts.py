"""What a decoder must be told, and the check that a contract tells it.

A contract comes from a file. Every decoder lists the facts that it reads as name -> one of the
kinds below, so that a missing or odd one is named before anything is computed.
"""
import math
from numbers import Integral, Real
from typing import Any, Callable, Dict, NamedTuple, Sequence

from mmdet_bpu.errors import BpuError


class Kind(NamedTuple):
    """What a fact may be.

    Attributes:
        words (str): What is expected, in words.
        fits (Callable[[Any], bool]): Whether a value of a JSON document is of this kind.
        per_level (bool): It is a list with an entry for each feature level. Defaults to False.
    """
    words: str
    fits: Callable[[Any], bool]
    per_level: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) < math.inf


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


def numbers(count: int) -> Kind:
    """A list of ``count`` numbers."""
    return Kind(f'a list of {count} numbers', lambda value: isinstance(value, (list, tuple))
                and len(value) == count and all(map(_is_number, value)))


def one_of(*choices: str) -> Kind:
    """One of some words."""
    return Kind(' or '.join(map(repr, choices)),
                lambda value: isinstance(value, str) and value in choices)


def optional(kind: Kind) -> Kind:
    """A kind, or null."""
    return Kind(f'{kind.words}, or null', lambda value: value is None or kind.fits(value))


def per_level(kind: Kind) -> Kind:
    """A list that is not empty, with one value of a kind for each feature level."""
    return Kind(f'for each level {kind.words}', lambda value: isinstance(value, (list, tuple))
                and len(value) > 0 and all(map(kind.fits, value)), per_level=True)


def table(**members: Kind) -> Kind:
    """A dict that has at least some members."""
    words = ', '.join(f'{name} ({kind.words})' for name, kind in members.items())
    return Kind(f'a table of {words}', lambda value: isinstance(value, dict)
                and all(name in value and kind.fits(value[name])
                        for name, kind in members.items()))


NUMBER = Kind('a finite number', _is_number)
COUNT = Kind('a whole number above 0', _is_count)
INTEGER = Kind('a whole number',
               lambda value: isinstance(value, Integral) and not isinstance(value, bool))
FLAG = Kind('true or false', lambda value: isinstance(value, bool))

STRIDES = per_level(numbers(2))  # across, down; px
BASE_ANCHORS = per_level(per_level(numbers(4)))  # boxes around the first cell of a level, px

# Facts of every contract, whatever its decoder.
_SHARED_OPTIONS = dict(iou_threshold=NUMBER, offset=INTEGER, class_agnostic=FLAG, split_thr=NUMBER)
NMS_OPTIONS = dict(
    nms=dict(_SHARED_OPTIONS, type=one_of('nms'), max_num=INTEGER, score_threshold=NUMBER),
    soft_nms=dict(_SHARED_OPTIONS, type=one_of('soft_nms'), sigma=NUMBER, min_score=NUMBER,
                  method=one_of('naive', 'linear', 'gaussian')))


def _is_nms(value: Any) -> bool:
    if not isinstance(value, dict) or value.get('type') not in list(NMS_OPTIONS):
        return False
    options = NMS_OPTIONS[value['type']]
    return set(value) == set(options) and all(
        kind.fits(value[name]) for name, kind in options.items())


COMMON = dict(
    input_shape=Kind('height and width in px', lambda value: numbers(2).fits(value)
                     and all(map(_is_count, value))),
    num_classes=COUNT,
    min_bbox_size=optional(NUMBER),  # px of the picture; a side must exceed it
    nms=optional(Kind('a table of type nms or soft_nms with all of its options', _is_nms)),
    max_per_img=optional(COUNT))


def image_shape(facts: Dict[str, Any]) -> Sequence[int]:
    """Height and width, px, of what mmdet calls the image: boxes are clipped to it.

    It starts where the network's input does, and is all of it unless the contract clips to the
    picture; then ``detect`` adds ``image_shape``.
    """
    return facts.get('image_shape', facts['input_shape'])


def check_facts(facts: Dict[str, Any], expected: Dict[str, Kind]) -> None:
    """Check the post-processing part of a contract.

    Raises:
        BpuError: A fact is missing or not of its kind, or some have another number of levels.
    """
    for name, kind in expected.items():
        if name not in facts:
            raise BpuError(f'contract, postprocessing.{name}: expected {kind.words}, found none')
        if not kind.fits(facts[name]):
            raise BpuError(f'contract, postprocessing.{name}: expected {kind.words}, found '
                           f'{str(facts[name])[:80]}')
    levels = {name: len(facts[name]) for name, kind in expected.items() if kind.per_level}
    if len(set(levels.values())) > 1:
        raise BpuError('contract, postprocessing: expected as many levels everywhere, found '
                       f'{levels}')
