"""Errors that a user can act on, and how command-line tools end on them."""
import functools
import sys
from typing import Callable


class BpuError(ValueError):
    """Bad input: a file, a config field, a checkpoint or a model that cannot be used.

    The message says what was expected, what was found (file, field, tensor) and what to do.
    Command-line tools print it without a traceback and exit with code 2.
    """


def exit_on_error(main: Callable[..., None]) -> Callable[..., None]:
    """Decorate a tool's ``main``: a :class:`BpuError` becomes one message and exit code 2.

    Any other exception is a program error and keeps its traceback (exit code 1).
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except BpuError as error:
            print(f'error: {error}', file=sys.stderr)
            raise SystemExit(2) from None

    return wrapper
