"""The notation of operation signatures, read from a table.

One row of a table describes one or more operations of the same signature::

    conv2d = input?: float, bias?~: float[1] -> output?: float {stride: i64s[2], groupNum: i64}

``name: elements[rank]`` is an operand or a result: its element types (a class of the table or
names joined by ``|``) and its rank if fixed. Marks after a name: ``?`` may be of type ``none``,
``~`` may be left out, ``*`` stands for any number of values. In braces come the attributes with
their kinds; there ``?`` means that the attribute may be left out.

Kinds: ``i64``, ``bool``, ``f64``, ``number`` (i64 or f64), ``str``, ``type``, ``elements`` (a dense
constant), ``i64s`` and ``f64s`` (lists written ``[1, 1]``), ``f32s`` (written ``[1.0 : f32]``),
``ints`` (a list written ``array<i64: 1, 1>``), each of these with a fixed length as ``i64s[2]``, and
``#Name`` (a keyword written ``#hbdk<Name keyword>``).
"""
import re
from dataclasses import dataclass
from typing import Mapping

_VALUE = re.compile(r'(?P<name>\w+)(?P<marks>[?~*]*): (?P<elements>[\w|]+)(\[(?P<rank>\d)\])?')
_ATTRIBUTE = re.compile(r'(?P<name>\w+)(?P<mark>\??): (?P<kind>#?\w+(\[\d\])?)')


@dataclass(frozen=True)
class ValueSpec:
    """An operand or a result of a signature."""

    name: str
    elements: tuple[str, ...]
    rank: int | None
    may_be_none: bool
    may_be_left_out: bool
    variadic: bool


@dataclass(frozen=True)
class OpSpec:
    """Signature of one operation; ``attributes`` maps a name to (kind, required)."""

    name: str
    operands: tuple[ValueSpec, ...]
    results: tuple[ValueSpec, ...]
    attributes: Mapping[str, tuple[str, bool]]


def parse_table(table: str, classes: Mapping[str, str],
                required: Mapping[str, str] | None = None,
                extra_elements: Mapping[str, str] | None = None) -> dict[str, OpSpec]:
    """Read a table of signatures.

    Args:
        table: Rows ``names = signature``; a row goes on in lines that start with a blank.
        classes: Names for sets of element types (each a string of names).
        required: Per op, the attributes that must be present, all others being optional.
            None leaves that to the marks in the table.
        extra_elements: Per op, element types to accept beyond those of the table.
    """
    specs = {}
    for row in re.sub(r'\n +', ' ', table.strip()).splitlines():
        names, signature = row.split(' = ')
        values, _, attributes = signature.partition(' {')
        operands, _, results = (' ' + values).partition(' ->')
        for name in names.split():
            extra = (extra_elements or {}).get(name, '').split()
            specs[name] = OpSpec(
                name, _values(operands, classes, extra), _values(results, classes, extra),
                {match['name']: (match['kind'], not match['mark'] if required is None
                                 else match['name'] in required.get(name, '').split())
                 for match in _ATTRIBUTE.finditer(attributes)})
    return specs


def _values(text: str, classes: Mapping[str, str], extra: list[str]) -> tuple[ValueSpec, ...]:
    values = []
    for match in _VALUE.finditer(text):
        elements = [name for part in match['elements'].split('|')
                    for name in classes.get(part, part).split()]
        marks = match['marks']
        values.append(ValueSpec(match['name'], tuple(elements + extra),
                                int(match['rank']) if match['rank'] else None,
                                '?' in marks, '~' in marks, '*' in marks))
    return tuple(values)
