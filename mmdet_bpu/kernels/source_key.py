"""Compiled code that is found again only while no source beside its own has changed.

numba keeps compiled functions in files and looks at the age of the file that a function stands in,
not at those of the functions that it calls. So a changed requantization would not be seen by loops
that stand elsewhere.
"""
import functools
import zlib
from pathlib import Path
from typing import Callable


@functools.lru_cache(maxsize=None)
def sources_key(folder: Path) -> int:
    """A number that changes with any Python source of a folder."""
    sources = sorted(folder.glob('*.py'))
    return zlib.crc32(b''.join(source.name.encode() + source.read_bytes() for source in sources))


def named_by_sources(function: Callable) -> Callable:
    """Name a function, and so the file that keeps it compiled, after all sources of its folder.

    Stands between the function and numba.
    """
    folder = Path(function.__code__.co_filename).parent
    function.__qualname__ += f'_{sources_key(folder):08x}'
    return function
