"""Errors that a user can act on, and how command-line tools end on them."""
import functools
import re
import sys
from typing import Callable, Mapping, Sequence


class BpuError(ValueError):
    """Bad input: a file, a config field, a checkpoint or a model that cannot be used.

    The message says what was expected, what was found (file, field, tensor) and what to do. It
    names a parameter of a function as ``parameter NAME`` or ``parameter NAME=VALUE``; tools put
    their option in its place. They print it without a traceback and exit with code 2.
    """


def first_names(names: Sequence[str], most: int = 8) -> str:
    """Names in a message: the first ones, and how many more there are."""
    more = f', and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def exit_on_error(*parameters: str, **options: str) -> Callable[[Callable], Callable[..., None]]:
    """Decorate a tool's ``main``: a :class:`BpuError` becomes one message and exit code 2.

    Any other exception is a program error and keeps its traceback (exit code 1).

    Args:
        parameters (str): Parameters that the tool has under an option of the same name,
            ``on_error`` as ``--on-error``.
        options (str): Parameter -> option of another name, ``out_dir='--out'``.
    """
    options = {**{name: '--' + name.replace('_', '-') for name in parameters}, **options}

    def decorate(main: Callable[..., None]) -> Callable[..., None]:

        @functools.wraps(main)
        def wrapper(*args, **kwargs):
            try:
                return main(*args, **kwargs)
            except BpuError as error:
                print(f'error: {with_options(str(error), options)}', file=sys.stderr)
                raise SystemExit(2) from None

        wrapper.options = options
        return wrapper

    return decorate


_PARAMETER = re.compile(r"\bparameter (\w+)(?:=(?:'([^']*)'|(\w+)))?")


def with_options(message: str, options: Mapping[str, str]) -> str:
    """A message with a command's options for the parameters that it names.

    ``parameter on_error='skip'`` is ``--on-error skip``, ``parameter resume=True`` is ``--resume``.
    Parameters that the command does not have stay as they are.
    """

    def option(match: re.Match) -> str:
        name, quoted, plain = match.groups()
        if name not in options:
            return match.group(0)
        value = quoted if quoted is not None else plain
        return options[name] if value in (None, 'True') else f'{options[name]} {value}'

    return _PARAMETER.sub(option, message)
