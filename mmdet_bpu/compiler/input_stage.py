"""What happens to a picture before the network, read from a contract whatever it holds."""
from typing import Any, Mapping

FIRST = ('input_format', 'color_order', 'resize', 'mean', 'std', 'formula', 'by')
"""Facts that are shown before the others, in this order."""


def input_stage_rows(metadata: Mapping[str, Any]) -> list[dict[str, str]]:
    """Facts of the contract's ``preprocessing``, nested ones by their path, as ``fact`` and ``value``.

    Args:
        metadata (Mapping): Of a program; one without a contract has none of them.
    """
    stage = metadata.get('preprocessing')
    if not isinstance(stage, Mapping):
        return []
    names = [*(name for name in FIRST if name in stage),
             *sorted(name for name in stage if name not in FIRST)]
    return [row for name in names for row in _rows(str(name), stage[name])]


def _rows(path: str, value: Any) -> list[dict[str, str]]:
    if isinstance(value, Mapping):
        return [row for name in sorted(value) for row in _rows(f'{path}.{name}', value[name])]
    if isinstance(value, (list, tuple)):
        value = ', '.join(f'{each:g}' if isinstance(each, float) else str(each) for each in value)
    return [{'fact': path, 'value': str(value)}]
