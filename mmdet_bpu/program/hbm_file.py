"""Programs with their schedules and memory plans as ``.hbm`` sections, and back.

=============  ==================================================================================
section        content
=============  ==================================================================================
program        JSON: per network its name, inputs, outputs, types, constants, and instructions in
               the order they run
memory         JSON: per network arena size, and offset and lifetime of every activation
weights        constants and long attributes (multipliers, tables), little endian, 64-byte aligned,
               of all networks: what two of them share is stored once
metadata       JSON: the deployment contract (colour order, resize, scales, what the host does)
performance    JSON: per network the estimate for the march
=============  ==================================================================================

A detector that the host interrupts (proposals, then their heads) is several networks. "Per network"
is a list under ``networks``, in one order in every section. Format version 1 knew one network:
there each section is that network's entry itself, without a name.
"""
import json
from dataclasses import asdict, dataclass

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.container import canonical_json, read_bytes, unseal
from mmdet_bpu.program.memory_plan import ALIGNMENT, Buffer, MemoryPlan
from mmdet_bpu.program.program import Instruction, Program, TensorType, Value

ONLY_NETWORK = 'forward'
"""Name of the network of a detector that is one network."""

_ARRAY_TYPES = ('bool', 'int8', 'uint8', 'int16', 'int32', 'int64')


@dataclass(frozen=True)
class CompiledNetwork:
    """One network of a ``.hbm``.

    Attributes:
        name (str): Unique in its file.
        program (Program): Its instructions stand in the order they run.
        plan (MemoryPlan): Steps count those instructions.
        performance (dict): The estimate, JSON values.
    """
    name: str
    program: Program
    plan: MemoryPlan
    performance: dict


@dataclass(frozen=True)
class HbmFile:
    """A decoded ``.hbm``.

    Attributes:
        header (dict): Header of the envelope: march, notice, section table.
        networks (list[CompiledNetwork]): At least one, in the order the host runs them.
        metadata (dict): The deployment contract; every network's program has it too.
    """
    header: dict
    networks: list[CompiledNetwork]
    metadata: dict


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


def encode(networks: list[CompiledNetwork]) -> dict[str, bytes]:
    """Sections of compiled networks that share one contract."""
    metadata = networks[0].program.metadata
    assert all(network.program.metadata == metadata for network in networks)
    assert len({network.name for network in networks}) == len(networks)
    blob = _Blob()
    entries = {'program': [_encode_program(network, blob) for network in networks],
               'memory': [asdict(network.plan) for network in networks],
               'performance': [network.performance for network in networks]}
    sections = {name: canonical_json({'networks': entry}) for name, entry in entries.items()}
    return {**sections, 'weights': b''.join(blob.parts), 'metadata': canonical_json(metadata)}


def _encode_program(network: CompiledNetwork, blob: _Blob) -> dict:
    program, values = network.program, {}
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
                    for instruction in program.instructions]
    return {'name': network.name, 'inputs': list(program.inputs),
            'outputs': list(program.outputs), 'values': values, 'instructions': instructions}


def decode(header: dict, sections: dict[str, bytes], label: str) -> HbmFile:
    """Networks from sections.

    Raises:
        BpuError: A section does not hold what it should; the message names it.
    """
    current = 'metadata'
    try:
        metadata = json.loads(sections['metadata'])
        current = 'program'
        names, programs = [], []
        for entry in _entries(header, sections, 'program'):
            names.append(entry.get('name', ONLY_NETWORK))
            programs.append(_decode_program(entry, sections['weights'], metadata))
        if not names or len(set(names)) != len(names):
            raise ValueError(f'networks {names}')
        current = 'memory'
        plans = [MemoryPlan(entry['arena_bytes'], entry['peak_live_bytes'],
                            {name: Buffer(**place) for name, place in entry['buffers'].items()})
                 for entry in _entries(header, sections, 'memory', len(names))]
        current = 'performance'
        estimates = _entries(header, sections, 'performance', len(names))
        return HbmFile(header, [CompiledNetwork(*parts) for parts in
                                zip(names, programs, plans, estimates)], metadata)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BpuError(f'{label}: section {current!r} cannot be read ({error!r})') from None


def _entries(header: dict, sections: dict[str, bytes], section: str, count: int = 0) -> list:
    """What a section says of each network; ``count``, if given, is how many there are."""
    content = json.loads(sections[section])
    entries = [content] if header['format_version'] == 1 else content['networks']
    if count and len(entries) != count:
        raise ValueError(f'{len(entries)} networks, expected {count}')
    return entries


def _decode_program(content: dict, weights: bytes, metadata: dict) -> Program:
    values = {name: _decode_value(name, entry, weights)
              for name, entry in content['values'].items()}
    instructions = [
        Instruction(op=entry['op'], inputs=entry['inputs'], outputs=entry['outputs'],
                    attrs={key: _decode_attribute(value, weights)
                           for key, value in entry['attrs'].items()}, site=entry['site'])
        for entry in content['instructions']]
    return Program(values=values, inputs=content['inputs'], outputs=content['outputs'],
                   instructions=instructions, metadata=metadata)


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
