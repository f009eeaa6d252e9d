"""Damage as disks, copies and editors do it, to any file."""
import random

_INSERTED = (b'\0' * 64, b'\xff' * 7, b'PK\x03\x04', b'more')


def damaged(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The content with some bytes other, missing or too many, and what was done in words."""
    if not data:  # damaged before
        return b'more', "b'more' inserted at 0"
    place, length = rng.randrange(len(data)), rng.choice([1, 1, 4, 64, 500])
    kind = rng.choice(['flip', 'cut', 'lose', 'insert', 'repeat', 'blank'])
    if kind == 'flip':
        bit = 1 << rng.randrange(8)
        return data[:place] + bytes([data[place] ^ bit]) + data[place + 1:], f'bit {bit} at {place}'
    if kind == 'cut':
        return data[:place], f'cut at {place}'
    if kind == 'lose':
        return data[:place] + data[place + length:], f'{length} bytes lost at {place}'
    if kind == 'insert':
        extra = rng.choice(_INSERTED)
        return data[:place] + extra + data[place:], f'{extra!r} inserted at {place}'
    if kind == 'repeat':
        part = data[place:place + length]
        return data[:place] + part + data[place:], f'{len(part)} bytes at {place} twice'
    return (data[:place] + bytes(len(data[place:place + length])) + data[place + length:],
            f'{length} bytes blank at {place}')
