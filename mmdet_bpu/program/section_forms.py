"""What the sections of a ``.hbm`` say of one network: a program, and where its activations lie.

Every entry is compared with its form, and every size with what the file holds, before anything of
that size is made. The functions raise ValueError for another form.
"""
from math import prod
from typing import Any, Callable

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.memory_plan import ALIGNMENT, Buffer, MemoryPlan, align
from mmdet_bpu.program.operation_checks import MAX_ELEMENTS, MAX_RANK
from mmdet_bpu.program.program import Instruction, Program, TensorType, Value
from mmdet_bpu.program.verify import verify_program

ARRAY_TYPES = ('bool', 'int8', 'uint8', 'int16', 'int32', 'int64')
STORED_TYPES = {'i1': 'bool', 'ui8': 'uint8', 'si8': 'int8', 'si16': 'int16', 'si32': 'int32'}
"""Element name -> array type of a constant."""

Fits = Callable[[Any], bool]


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_RANK and all(
        _is_count(size) and size <= MAX_ELEMENTS for size in value)


def _is_scale(value: Any) -> bool:
    return value is None or type(value) in (int, float)


def _is_reference(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and _is_text(value[0]) \
        and _is_shape(value[1]) and _is_count(value[2])


def is_table(value: Any) -> bool:
    """Whether a JSON value is a table."""
    return isinstance(value, dict)


def is_list(value: Any) -> bool:
    """Whether a JSON value is a list."""
    return isinstance(value, list)


_VALUE = dict(shape=_is_shape, dtype=_is_text, scale=_is_scale)
_INSTRUCTION = dict(op=_is_text, inputs=_are_texts, outputs=_are_texts, site=_is_text,
                    attrs=is_table)
_PROGRAM = dict(inputs=_are_texts, outputs=_are_texts, values=is_table, instructions=is_list)
_PLAN = dict(arena_bytes=_is_count, peak_live_bytes=_is_count, buffers=is_table)
_BUFFER = dict(offset=_is_count, nbytes=_is_count, first=_is_count, last=_is_count)


def checked(entry: Any, what: str, form: dict[str, Fits], optional: dict[str, Fits]) -> dict:
    """A table that has the fields of a form, perhaps optional ones, and no other."""
    if not isinstance(entry, dict):
        raise ValueError(f'{what} is no table')
    unknown = sorted(entry.keys() - form.keys() - optional.keys())
    if unknown:
        raise ValueError(f'{what} has the unknown field {unknown[0][:80]!r}')
    for name, fits in {**form, **optional}.items():
        if name not in entry and name in form:
            raise ValueError(f'{what} lacks {name!r}')
        if name in entry and not fits(entry[name]):
            raise ValueError(f'{what} has {name!r}: {str(entry[name])[:80]}')
    return entry


class Weights:
    """The section of constants and long attributes.

    Args:
        content (bytes): The section.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def check(self, reference: list) -> None:
        """Check that a reference [dtype, shape, offset] lies within the section."""
        name, shape, offset = reference
        if name not in ARRAY_TYPES:
            raise ValueError(f'array type {name[:80]!r}')
        nbytes = prod(shape) * np.dtype(name).itemsize
        if offset % ALIGNMENT or offset + nbytes > len(self._content):
            raise ValueError(f'array of {nbytes} bytes at byte {offset} leaves the weights section '
                             f'or does not start at a multiple of {ALIGNMENT}')

    def view(self, reference: list) -> np.ndarray:
        """The array of a reference, read-only, without a copy."""
        self.check(reference)
        name, shape, offset = reference
        dtype = np.dtype(name).newbyteorder('<')
        return np.frombuffer(self._content, dtype, prod(shape), offset).reshape(shape)

    def array(self, reference: list) -> np.ndarray:
        """The array of a reference, a copy in the byte order of this machine."""
        return self.view(reference).astype(np.dtype(reference[0]))


def decode_program(entry: Any, weights: Weights, metadata: dict) -> Program:
    """A verified program.

    Raises:
        ValueError: An entry has another form, or a constant leaves the section.
        BpuError: It is no program.
    """
    entry = checked(entry, 'network', _PROGRAM, dict(name=_is_text))
    values, references = {}, {}
    for name, value in entry['values'].items():
        what = f'value {name[:80]!r}'
        value = checked(value, what, _VALUE, dict(data=_is_reference))
        kind = TensorType(tuple(value['shape']), value['dtype'], value['scale'])
        values[name] = Value(name, kind)
        if 'data' in value:
            references[name] = value['data']
            if value['data'][:2] != [STORED_TYPES.get(kind.dtype), value['shape']]:
                raise ValueError(f'{what} is {kind.dtype[:80]} of shape {kind.shape}, its data '
                                 f'{str(value["data"][:2])[:80]}')
            weights.check(value['data'])
    instructions = [_decode_instruction(index, instruction, weights)
                    for index, instruction in enumerate(entry['instructions'])]
    program = Program(values, entry['inputs'], entry['outputs'], instructions, metadata)
    verify_program(program, list(references), len(weights))
    for name, reference in references.items():
        values[name].data = weights.array(reference)
    return program


def _decode_instruction(index: int, entry: Any, weights: Weights) -> Instruction:
    entry = checked(entry, f'instruction {index}', _INSTRUCTION, {})
    attrs = {name: weights.view(checked(value, f'attribute {name[:80]!r} of instruction {index}',
                                        dict(array=_is_reference), {})['array'])
             if isinstance(value, dict) else value for name, value in entry['attrs'].items()}
    return Instruction(entry['op'], entry['inputs'], entry['outputs'], attrs, entry['site'])


def decode_plan(entry: Any, program: Program) -> MemoryPlan:
    """The plan of a program whose sizes are those of its values.

    Where the buffers lie is the file's affair: a wrong plan gives wrong numbers.

    Raises:
        ValueError: An entry has another form.
        BpuError: A buffer is of another size than its value, leaves the arena or is missing, or the
            arena is larger than all buffers together.
    """
    entry = checked(entry, 'plan', _PLAN, {})
    buffers = {name: Buffer(**checked(place, f'buffer {name[:80]!r}', _BUFFER, {}))
               for name, place in entry['buffers'].items()}
    plan = MemoryPlan(entry['arena_bytes'], entry['peak_live_bytes'], buffers)
    for name, buffer in buffers.items():
        value = program.values.get(name)
        if value is None or value.data is not None:
            raise BpuError(f'{name[:80]!r} is no activation of the program')
        _check_buffer(name, buffer, value.type.nbytes, plan, len(program.instructions))
    if max(plan.arena_bytes, plan.peak_live_bytes) > sum(
            align(buffer.nbytes) for buffer in buffers.values()):
        raise BpuError(f'an arena of {plan.arena_bytes} bytes, of which {plan.peak_live_bytes} are '
                       'live at one time, is larger than all of its buffers')
    unplaced = [name for name, value in program.values.items()
                if value.data is None and name not in buffers]
    if unplaced:
        raise BpuError(f'no place for {unplaced[0][:80]!r}')
    return plan


def _check_buffer(name: str, buffer: Buffer, nbytes: int, plan: MemoryPlan, steps: int) -> None:
    if buffer.nbytes != nbytes:
        raise BpuError(f'{name[:80]!r} takes {nbytes} bytes, its buffer has {buffer.nbytes}')
    if buffer.offset % ALIGNMENT or buffer.offset + buffer.nbytes > plan.arena_bytes:
        raise BpuError(f'{name[:80]} of {nbytes} bytes at offset {buffer.offset} does not fit the '
                       f'arena of {plan.arena_bytes} bytes')
    if not buffer.first <= buffer.last <= steps:
        raise BpuError(f'{name[:80]!r} lives from step {buffer.first} to {buffer.last} of {steps}')
