"""The form of a rule: a dict whose keys say what it matches and what it sets."""
from numbers import Real
from typing import Any, Sequence

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.scales import LARGEST_SCALE, SMALLEST_SCALE
from mmdet_bpu.program.dtypes import USER_DTYPES
from mmdet_bpu.quantization.observers import check_criterion, check_observer

MATCH_FIELDS = ('site', 'module', 'op')
SET_FIELDS = ('dtype', 'observer', 'scale', 'weight_observer')


def check_rules(rules: Sequence[dict], field: str = 'bpu.qconfig') -> None:
    """Raise :class:`BpuError` for a malformed rule, naming its index and field."""
    for index, rule in enumerate(rules):
        where = f'{field}[{index}]'
        if not isinstance(rule, dict):
            raise BpuError(f'{where}: expected a dict, found {type(rule).__name__}')
        unknown = [name for name in rule if name not in MATCH_FIELDS + SET_FIELDS]
        if unknown:
            raise BpuError(f'{where}: unknown field {unknown[0]!r}; known are '
                           f'{", ".join(MATCH_FIELDS + SET_FIELDS)}')
        if not set(rule) & set(MATCH_FIELDS):
            raise BpuError(f'{where}: expected one of {", ".join(MATCH_FIELDS)} to match by')
        if not set(rule) & set(SET_FIELDS):
            raise BpuError(f'{where}: sets nothing; expected one of {", ".join(SET_FIELDS)}')
        dtype = rule.get('dtype', 'int8')
        if not isinstance(dtype, str) or dtype not in USER_DTYPES:
            raise BpuError(f'{where}.dtype: expected one of {", ".join(USER_DTYPES)}, found '
                           f'{dtype!r}')
        for name in MATCH_FIELDS:
            if name in rule and not isinstance(rule[name], str):
                raise BpuError(f'{where}.{name}: expected a str, found {rule[name]!r}')
        if rule.get('observer') is not None:
            check_observer(rule['observer'], f'{where}.observer')
        if rule.get('weight_observer') is not None:
            check_criterion(rule['weight_observer'], f'{where}.weight_observer')
        if rule.get('scale') is not None:
            _check_scale(rule['scale'], f'{where}.scale')


def _check_scale(scale: Any, where: str) -> None:
    number = isinstance(scale, Real) and not isinstance(scale, bool)
    if not (number and SMALLEST_SCALE <= scale <= LARGEST_SCALE):
        raise BpuError(f'{where}: expected a positive number, from 2**-60 to 2**60, found '
                       f'{scale!r}')
