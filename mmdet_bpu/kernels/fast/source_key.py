"""Compiled code that is found again only while no source of this folder has changed.

numba keeps compiled functions in files and looks at the age of the file that a function stands in,
not at those of the functions that it calls. So a changed requantization would not be seen by loops
that stand elsewhere.
"""
import zlib
from pathlib import Path
from typing import Callable


def sources_key(folder: Path) -> int:
    """A number that changes with any Python source of a folder."""
    sources = sorted(folder.glob('*.py'))
    return zlib.crc32(b''.join(source.name.encode() + source.read_bytes() for source in sources))


SOURCES = sources_key(Path(__file__).parent)


def named_by_sources(function: Callable) -> Callable:
    """Name a function, and so the file that keeps it compiled, after all sources of the folder.

    Stands between the function and ``njit``.
    """
    function.__qualname__ += f'_{SOURCES:08x}'
    return function
