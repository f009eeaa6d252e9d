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
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.container import canonical_json, read_bytes, unseal
from mmdet_bpu.program.json_text import read_json
from mmdet_bpu.program.memory_plan import ALIGNMENT, MemoryPlan
from mmdet_bpu.program.program import Program
from mmdet_bpu.program.section_forms import (ARRAY_TYPES, Weights, checked, decode_plan,
                                             decode_program, is_list, is_table)

ONLY_NETWORK = 'forward'
"""Name of the network of a detector that is one network."""


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
        if array.dtype.name not in ARRAY_TYPES:
            raise BpuError(f'a .hbm holds integers only, found an array of {array.dtype}')
        content = array.astype(array.dtype.newbyteorder('<'), copy=False).tobytes()
        if content not in self.places:
            self.places[content] = self.size
            padding = bytes(-len(content) % ALIGNMENT)
            self.parts += [content, padding]
            self.size += len(content) + len(padding)
        return [array.dtype.name, list(array.shape), self.places[content]]


def _encode_attribute(value, blob: _Blob):
    if isinstance(value, np.ndarray):
        return {'array': blob.add(value)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_encode_attribute(item, blob) for item in value]
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
        metadata = _table(read_json(sections['metadata']))
        current = 'program'
        weights = Weights(sections['weights'])
        entries = _entries(header, sections, 'program')
        programs = [decode_program(entry, weights, metadata) for entry in entries]
        names = [entry.get('name', ONLY_NETWORK) for entry in entries]
        if not names or len(set(names)) != len(names):
            raise ValueError(f'networks {str(names)[:80]}')
        current = 'memory'
        plans = [decode_plan(entry, program) for entry, program in zip(
            _entries(header, sections, 'memory', len(names)), programs)]
        current = 'performance'
        estimates = [_table(entry) for entry in
                     _entries(header, sections, 'performance', len(names))]
    except BpuError as error:
        raise BpuError(f'{label}: section {current!r}: {error}; deploy the model again') from None
    except ValueError as error:
        raise BpuError(f'{label}: section {current!r} cannot be read ({error}); deploy the model '
                       'again') from None
    return HbmFile(header, [CompiledNetwork(*parts) for parts in
                            zip(names, programs, plans, estimates)], metadata)


def _entries(header: dict, sections: dict[str, bytes], section: str, count: int = 0) -> list:
    """What a section says of each network; ``count``, if given, is how many there are."""
    content = _table(read_json(sections[section]))
    if header['format_version'] == 1:
        entries = [content]
    else:
        entries = checked(content, 'section', dict(networks=is_list), {})['networks']
    if count and len(entries) != count:
        raise ValueError(f'{len(entries)} networks, expected {count}')
    return entries


def _table(content: Any) -> dict:
    if not is_table(content):
        raise ValueError(f'expected a table, found {str(content)[:80]}')
    return content


def read_hbm(path_or_bytes) -> HbmFile:
    """Read a ``.hbm`` of the simulator.

    Raises:
        BpuError: Missing, foreign, truncated or altered; the message names the section.
    """
    data, label = read_bytes(path_or_bytes)
    header, sections = unseal(data, label)
    return decode(header, sections, label)
