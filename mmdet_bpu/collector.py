"""Python's cyclic garbage collector, which looks at every object of a growing program again and again."""
import contextlib
import gc
from typing import Iterator


@contextlib.contextmanager
def paused_collector() -> Iterator[None]:
    """No cyclic collection inside; also a decorator. For work that keeps nearly all that it makes."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
