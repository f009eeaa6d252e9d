"""The ``.hbm`` envelope: named sections with hashes behind a readable header.

    bytes 0..7     magic
    8..11          format version, uint32 little endian
    12..19         length of the header, uint64 little endian
    20..51         SHA-256 of the header
    52..           header: canonical JSON, names every section with offset, length and SHA-256
    then           sections, each starting at a multiple of 64 bytes, zeros between

The same sections give the same bytes: no time, no host, no path is stored.
"""
import hashlib
import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.budget import MEMORY_BUDGET
from mmdet_bpu.program.json_text import read_json

MAGIC = b'BPUSIM\r\n'
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)  # 1: one network and no list of them, see hbm_file.py
SECTIONS = ('program', 'memory', 'weights', 'metadata', 'performance')
_PREFIX = struct.Struct('<8sIQ32s')
_ALIGNMENT = 64
NOTICE = ('Runs in the mmdet_bpu simulator, not on a board. For the board, install the vendor\'s '
          'hbdk4 and deploy again with the backend hbdk4.')


def canonical_json(value) -> bytes:
    """JSON with sorted keys and no spaces, so that equal values are equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(',', ':'), allow_nan=False,
                      ensure_ascii=False).encode()


def seal(fields: dict, sections: dict[str, bytes]) -> bytes:
    """Put sections into an envelope with valid hashes.

    Args:
        fields (dict): Further header entries, JSON values.
        sections (dict[str, bytes]): Content of each of :data:`SECTIONS`.

    Returns:
        bytes: The file.
    """
    entries = []
    offset = 0
    for name in SECTIONS:
        content = sections[name]
        entries.append({'name': name, 'offset': offset, 'nbytes': len(content),
                        'sha256': hashlib.sha256(content).hexdigest()})
        offset += -(-len(content) // _ALIGNMENT) * _ALIGNMENT
    header = canonical_json({**fields, 'format': 'mmdet_bpu hbm', 'notice': NOTICE,
                             'sections': entries})
    prefix = _PREFIX.pack(MAGIC, FORMAT_VERSION, len(header), hashlib.sha256(header).digest())
    parts = [prefix, header, bytes(-(len(prefix) + len(header)) % _ALIGNMENT)]
    for name in SECTIONS:
        parts += [sections[name], bytes(-len(sections[name]) % _ALIGNMENT)]
    return b''.join(parts)


def unseal(data: bytes, label: str = 'hbm') -> tuple[dict, dict[str, bytes]]:
    """Check an envelope and take its sections out.

    Args:
        data (bytes): Content of a file.
        label (str): What to call it in messages, usually its path.

    Returns:
        tuple[dict, dict[str, bytes]]: Header, with the ``format_version`` of the prefix, and
        section contents.

    Raises:
        BpuError: Foreign, of another format version, truncated or altered; the message names the
            section.
    """
    if data[:len(MAGIC)] != MAGIC:
        raise BpuError(
            f'{label}: not a .hbm of mmdet_bpu (it starts with {data[:8]!r}, expected {MAGIC!r}). '
            'A .hbm made by the vendor\'s hbdk4 runs on a board, not in this simulator.')
    if len(data) < _PREFIX.size:
        raise BpuError(f'{label}: truncated in the prefix ({len(data)} bytes)')
    _, version, length, digest = _PREFIX.unpack_from(data)
    if version not in READABLE_VERSIONS:
        raise BpuError(f'{label}: format version {version}, this mmdet_bpu reads '
                       f'{" and ".join(map(str, READABLE_VERSIONS))}; deploy the model again')
    raw = data[_PREFIX.size:_PREFIX.size + length]
    if len(raw) < length:
        raise BpuError(f'{label}: truncated in the header ({len(raw)} of {length} bytes)')
    if hashlib.sha256(raw).digest() != digest:
        raise BpuError(f'{label}: the header is altered (its SHA-256 does not match); deploy the '
                       'model again')
    try:
        header = read_json(raw)
        places = _places(header)
    except ValueError as error:
        raise BpuError(f'{label}: the header cannot be read ({error}); deploy the model '
                       'again') from None
    base = _PREFIX.size + length
    base += -base % _ALIGNMENT
    sections = {}
    for name, (offset, nbytes, expected) in places.items():
        content = data[base + offset:base + offset + nbytes]
        if len(content) != nbytes:
            raise BpuError(f'{label}: section {name!r} is truncated ({len(content)} of {nbytes} '
                           'bytes); deploy the model again')
        if hashlib.sha256(content).hexdigest() != expected:
            raise BpuError(f'{label}: section {name!r} is altered (its SHA-256 does not match); '
                           'deploy the model again')
        sections[name] = content
    end = max(base + offset + nbytes for offset, nbytes, _ in places.values())
    if len(data) != end + -end % _ALIGNMENT:
        raise BpuError(f'{label}: altered behind its last section ({len(data)} bytes, expected '
                       f'{end + -end % _ALIGNMENT}); deploy the model again')
    return {**header, 'format_version': version}, sections


def _places(header: Any) -> dict[str, tuple[int, int, str]]:
    """Section -> offset, length and hash, in the order and the places that :func:`seal` gives."""
    entries = header.get('sections') if isinstance(header, dict) else None
    if not isinstance(entries, list) or len(entries) != len(SECTIONS):
        raise ValueError(f'expected a list of {len(SECTIONS)} sections')
    places, end = {}, 0
    for name, entry in zip(SECTIONS, entries):
        if not isinstance(entry, dict) or entry.keys() != {'name', 'offset', 'nbytes', 'sha256'}:
            raise ValueError(f'expected name, offset, nbytes and sha256 of section {name!r}')
        if (entry['name'], entry['offset']) != (name, end) or type(entry['offset']) is not int:
            raise ValueError(f'expected section {name!r} at byte {end}')
        if type(entry['nbytes']) is not int or entry['nbytes'] < 0:
            raise ValueError(f'section {name!r} has no length')
        places[name] = end, entry['nbytes'], entry['sha256']
        end += -(-entry['nbytes'] // _ALIGNMENT) * _ALIGNMENT
    return places


def read_bytes(path_or_bytes) -> tuple[bytes, str]:
    """Content of a file and what to call it; bytes pass through.

    Raises:
        BpuError: No such file, no file, too large, or it cannot be read.
    """
    if isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        return bytes(path_or_bytes), 'hbm'
    try:
        status = os.stat(path_or_bytes)
        if not stat.S_ISREG(status.st_mode):
            raise BpuError(f'{path_or_bytes}: expected a file')
        if status.st_size > MEMORY_BUDGET:
            raise BpuError(f'{path_or_bytes}: has {status.st_size} bytes, more than the '
                           f'{MEMORY_BUDGET} that an artefact may ask for')
        return Path(path_or_bytes).read_bytes(), str(path_or_bytes)
    except OSError as error:
        raise BpuError(f'{path_or_bytes}: cannot be read ({error.strerror})') from None
