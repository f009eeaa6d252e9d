"""A program, its schedule and its memory plan as ``.hbm`` sections, and back.

=============  ==================================================================================
section        content
=============  ==================================================================================
program        JSON: inputs, outputs, types, constants, instructions in the order they run
memory         JSON: arena size, and offset and lifetime of every activation
weights        constants and long attributes (multipliers, tables), little endian, 64-byte aligned
metadata       JSON: the deployment contract (colour order, resize, scales, what the host does)
performance    JSON: the estimate for the march
=============  ==================================================================================
"""
import json
from dataclasses import asdict, dataclass

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.container import canonical_json, read_bytes, unseal
from mmdet_bpu.program.memory_plan import ALIGNMENT, Buffer, MemoryPlan
from mmdet_bpu.program.program import Instruction, Program, TensorType, Value

_ARRAY_TYPES = ('bool', 'int8', 'uint8', 'int16', 'int32', 'int64')


@dataclass(frozen=True)
class HbmFile:
    """A decoded ``.hbm``.

    Attributes:
        header: Header of the envelope: march, notice, section table.
        program: Program whose instructions stand in the order they run.
        plan: Memory plan; steps count those instructions.
        performance: Estimate, as from ``estimate_performance``.
    """
    header: dict
    program: Program
    plan: MemoryPlan
    performance: dict


class _Blob:
    """Constants one after another; equal contents are stored once."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.places: dict[bytes, int] = {}

    def add(self, array: np.ndarray) -> list:
        """Store an array and give its reference [dtype, shape, offset]."""
        array = np.ascontiguousarray(array)
        if array.dtype.name not in _ARRAY_TYPES:
            raise BpuError(f'a .hbm holds integers only, found an array of {array.dtype}')
        content = array.astype(array.dtype.newbyteorder('<'), copy=False).tobytes()
        if content not in self.places:
            self.places[content] = self.size
            padding = bytes(-len(content) % ALIGNMENT)
            self.parts += [content, padding]
            self.size += len(content) + len(padding)
        return [array.dtype.name, list(array.shape), self.places[content]]


def _fetch(weights: bytes, reference: list) -> np.ndarray:
    name, shape, offset = reference
    if name not in _ARRAY_TYPES:
        raise ValueError(f'array type {name!r}')
    dtype = np.dtype(name)
    count = int(np.prod(shape, dtype=np.int64))
    if offset < 0 or offset + count * dtype.itemsize > len(weights):
        raise ValueError(f'array at byte {offset} leaves the weights section')
    array = np.frombuffer(weights, dtype.newbyteorder('<'), count, offset)
    return array.reshape(shape).astype(dtype)


def _encode_attribute(value, blob: _Blob):
    if isinstance(value, np.ndarray):
        return {'array': blob.add(value)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_encode_attribute(item, blob) for item in value]
    return value


def _decode_attribute(value, weights: bytes):
    if isinstance(value, dict):
        return _fetch(weights, value['array'])
    return value


def encode(program: Program, order: list[int], plan: MemoryPlan,
           performance: dict) -> dict[str, bytes]:
    """Sections of a scheduled and planned program."""
    blob = _Blob()
    values = {}
    for name, value in program.values.items():
        entry = {'shape': list(value.type.shape), 'dtype': value.type.dtype,
                 'scale': value.type.scale}
        if value.data is not None:
            entry['data'] = blob.add(value.data)
        values[name] = entry
    instructions = [{'op': instruction.op, 'inputs': list(instruction.inputs),
                     'outputs': list(instruction.outputs), 'site': instruction.site,
                     'attrs': {key: _encode_attribute(value, blob)
                               for key, value in instruction.attrs.items()}}
                    for instruction in (program.instructions[index] for index in order)]
    content = {'inputs': list(program.inputs), 'outputs': list(program.outputs),
               'values': values, 'instructions': instructions}
    return {'program': canonical_json(content), 'memory': canonical_json(asdict(plan)),
            'weights': b''.join(blob.parts), 'metadata': canonical_json(program.metadata),
            'performance': canonical_json(performance)}


def decode(header: dict, sections: dict[str, bytes], label: str) -> HbmFile:
    """Program and plan from sections.

    Raises:
        BpuError: A section does not hold what it should; the message names it.
    """
    weights = sections['weights']
    current = 'program'
    try:
        content = json.loads(sections['program'])
        values = {name: _decode_value(name, entry, weights)
                  for name, entry in content['values'].items()}
        instructions = [
            Instruction(op=entry['op'], inputs=entry['inputs'], outputs=entry['outputs'],
                        attrs={key: _decode_attribute(value, weights)
                               for key, value in entry['attrs'].items()}, site=entry['site'])
            for entry in content['instructions']]
        current = 'metadata'
        program = Program(values=values, inputs=content['inputs'], outputs=content['outputs'],
                          instructions=instructions, metadata=json.loads(sections['metadata']))
        current = 'memory'
        memory = json.loads(sections['memory'])
        plan = MemoryPlan(memory['arena_bytes'], memory['peak_live_bytes'],
                          {name: Buffer(**entry) for name, entry in memory['buffers'].items()})
        current = 'performance'
        return HbmFile(header, program, plan, json.loads(sections['performance']))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BpuError(f'{label}: section {current!r} cannot be read ({error!r})') from None


def _decode_value(name: str, entry: dict, weights: bytes) -> Value:
    kind = TensorType(shape=tuple(entry['shape']), dtype=entry['dtype'], scale=entry['scale'])
    data = _fetch(weights, entry['data']) if 'data' in entry else None
    return Value(name=name, type=kind, data=data)


def read_hbm(path_or_bytes) -> HbmFile:
    """Read a ``.hbm`` of the simulator.

    Raises:
        BpuError: Missing, foreign, truncated or altered; the message names the section.
    """
    data, label = read_bytes(path_or_bytes)
    header, sections = unseal(data, label)
    return decode(header, sections, label)
