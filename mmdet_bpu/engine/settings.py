"""The one config key of ours, ``bpu``: its fields, their defaults and their validation.

Every field is a row of :data:`FIELDS`. A message names the field, what was expected and what was
found; an unknown field is refused with the closest known one.
"""
import difflib
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping

from mmdet_bpu.engine.stage_names import EXECUTABLE_STAGES, STAGES, TRAINING_STAGES  # noqa: F401
from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization.observers import OBSERVERS

MARCHES = ('nash-e', 'nash-m', 'nash-p')
INPUT_FORMATS = ('rgb', 'bgr')


@dataclass(frozen=True)
class Field:
    """One field under ``bpu``.

    Attributes:
        expected (str): What a value has to be, in words.
        accepts (Callable): Whether a value fits.
        default (Any): Value when the field is absent.
    """
    expected: str
    accepts: Callable[[Any], bool]
    default: Any = None


def _one_of(choices: tuple, default: Any = None) -> Field:
    return Field('one of ' + ', '.join(map(repr, choices)),
                 lambda value: isinstance(value, str) and value in choices, default)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_count, value))


def _is_rule_list(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(rule, Mapping) for rule in value)


def _is_observer(value: Any) -> bool:
    name = value.get('type') if isinstance(value, Mapping) else value
    return isinstance(name, str) and name in OBSERVERS.module_dict


FIELDS: Dict[str, Any] = {
    'stage': _one_of(STAGES),
    'march': _one_of(MARCHES, 'nash-e'),
    # 800 x 1333 px: the size that the reference recipe deploys for COCO.
    'input_shape': Field('(height, width), two positive integers (px)', _is_shape, (800, 1333)),
    'input_format': _one_of(INPUT_FORMATS, 'rgb'),
    'qconfig': Field('a list of rules (dicts)', _is_rule_list, ()),
    'deploy_preprocessing': Field(
        'True, False, or None (every stage but float)',
        lambda value: value is None or isinstance(value, bool)),
    'calibration': {
        'observer': Field(
            'one of ' + ', '.join(map(repr, sorted(OBSERVERS.module_dict)))
            + ', or a dict with one of them as its type', _is_observer, 'mse'),
        # Batches over all processes together, so that the result does not depend on their number.
        'num_batches': Field('a positive integer', _is_count, 100),
    },
}


def validate_settings(bpu: Any) -> Dict[str, Any]:
    """Check the config key ``bpu`` and fill in defaults.

    Args:
        bpu (Mapping): What the config holds under ``bpu``; ``stage`` is required.

    Returns:
        dict: A new plain dict with every field of :data:`FIELDS`.

    Raises:
        BpuError: A field is unknown, absent or holds a value of the wrong kind.
    """
    settings = _validate_section(bpu, FIELDS, 'bpu')
    if settings['deploy_preprocessing'] is None:
        settings['deploy_preprocessing'] = settings['stage'] != 'float'
    if settings['stage'] != 'float' and not settings['deploy_preprocessing']:
        raise BpuError("field bpu.deploy_preprocessing: expected True or None beyond the 'float' "
                       f"stage, found False with bpu.stage = {settings['stage']!r}; the quantized "
                       'graph has one fixed input shape')
    settings['input_shape'] = tuple(settings['input_shape'])
    return settings


def _validate_section(section: Any, fields: Mapping, path: str) -> Dict[str, Any]:
    if not isinstance(section, Mapping):
        raise BpuError(f'field {path}: expected a dict with {", ".join(fields)}, found {section!r}')
    for name in section:
        if name not in fields:
            close = difflib.get_close_matches(str(name), fields, n=1)
            hint = f'did you mean {path}.{close[0]}?' if close else f'known: {", ".join(fields)}'
            raise BpuError(f'unknown field {path}.{name} (value {section[name]!r}); {hint}')
    result = {}
    for name, field in fields.items():
        if isinstance(field, Mapping):
            result[name] = _validate_section(section.get(name, {}), field, f'{path}.{name}')
            continue
        value = section.get(name, field.default)
        if value is not field.default or name == 'stage':
            if not field.accepts(value):
                raise BpuError(f'field {path}.{name}: expected {field.expected}, found {value!r}')
        result[name] = _plain(value)
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
