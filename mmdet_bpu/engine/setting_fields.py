"""Fields of the config key ``bpu``, and how a section of them is checked and completed."""
import difflib
import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional

from mmdet_bpu.errors import BpuError


@dataclass(frozen=True)
class Field:
    """One field under ``bpu``.

    Attributes:
        expected (str): What a value has to be, in words.
        accepts (Callable): Whether a value fits.
        default (Any): Value when the field is absent.
        check (Callable, optional): Called with a value that fits and the name of the field; raises
            BpuError for what cannot be built of it.
        within (dict, optional): Fields of a value that is a dict.
    """
    expected: str
    accepts: Callable[[Any], bool]
    default: Any = None
    check: Optional[Callable[[Any, str], None]] = None
    within: Optional[Dict[str, 'Field']] = None


def one_of(choices: tuple, default: Any = None) -> Field:
    """A field that is one of some names."""
    return Field('one of ' + ', '.join(map(repr, choices)),
                 lambda value: isinstance(value, str) and value in choices, default)


def is_count(value: Any) -> bool:
    """Whether it is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_weight(value: Any) -> bool:
    """Whether it is a finite number that is not negative."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) \
        and math.isfinite(value) and value >= 0


def validate_section(section: Any, known: Mapping[str, Any], path: str) -> Dict[str, Any]:
    """Values of a section, absent ones completed.

    Args:
        section (Mapping): What the config holds there.
        known (Mapping): Name -> field, or the fields of a section inside.
        path (str): Its dotted name.

    Raises:
        BpuError: A field is unknown, or its value is of the wrong kind.
    """
    if not isinstance(section, Mapping):
        raise BpuError(f'field {path}: expected a dict with {", ".join(known)}, found {section!r}')
    for name in section:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f'did you mean {path}.{close[0]}?' if close else f'known: {", ".join(known)}'
            raise BpuError(f'unknown field {path}.{name} (value {section[name]!r}); {hint}')
    result = {}
    for name, field in known.items():
        if isinstance(field, Mapping):
            result[name] = validate_section(section.get(name, {}), field, f'{path}.{name}')
            continue
        value = section.get(name, field.default)
        if value is not field.default or name == 'stage':
            if not field.accepts(value):
                raise BpuError(f'field {path}.{name}: expected {field.expected}, found {value!r}')
        if field.within is not None and isinstance(value, Mapping):
            value = validate_section(value, field.within, f'{path}.{name}')
        result[name] = _plain(value)
        if field.check is not None:
            field.check(result[name], f'{path}.{name}')
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        kept: List[Any] = [_plain(item) for item in value]
        return kept
    return value
