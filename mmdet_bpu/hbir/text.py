"""Text form of a module: print, parse, verify, files; made for modules with 45 M weights.

Constants of more than 100 elements are hexadecimal dense attributes, ``dense<"0x...">``, in MLIR's
layout (little-endian elements; ``i1`` packed to bits, lowest first). Their bytes go straight from
the attribute to the text and back, never through Python lists. ``parse_text(print_text(m))``
prints the same text again, and equal modules print equal text.

Where an ``hbir`` operation comes from in the model is its location, ``loc("layer1.0/conv")``.
"""
import struct
from pathlib import Path
from typing import Callable

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.ir import Operation
from xdsl.utils.exceptions import ParseError, VerifyException

from mmdet_bpu.collector import paused_collector
from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.attributes import Hbdk
from mmdet_bpu.hbir.bpu_dialect import Bpu
from mmdet_bpu.hbir.hbir_dialect import Hbir
from mmdet_bpu.hbir.qnt_dialect import Qnt
from mmdet_bpu.hbir.text_limits import MAX_NESTING, too_deep
from mmdet_bpu.hbir.text_parser import ModuleParser
from mmdet_bpu.hbir.text_printer import ModulePrinter, Pieces
from mmdet_bpu.hbir.text_structure import check_structure
from mmdet_bpu.program.container import read_bytes

_XDSL_SLIPS = (ArithmeticError, ValueError, NotImplementedError, MemoryError, struct.error)
"""What xDSL 0.74 lets through for types that it parses but cannot represent, such as i20000."""


def print_text(module: ModuleOp) -> str:
    """Text of a module, with a newline at its end."""
    pieces: list[str] = []
    ModulePrinter(Pieces(pieces.append)).print_module(module)
    return ''.join(pieces)


def write_text(module: ModuleOp, path: str | Path) -> None:
    """Write the text of a module to a file, without holding it in memory."""
    with open(path, 'w', encoding='utf-8', newline='\n') as file:
        ModulePrinter(file).print_module(module)


@paused_collector()
def parse_text(text: str, name: str = '<text>', verify: bool = True) -> ModuleOp:
    """Parse the text of a module (``module {...}`` or a bare function).

    Args:
        text: MLIR text in the dialects builtin, func, hbir, qnt and bpu.
        name: What error messages call the text, such as its path.
        verify: Verify the module.

    Raises:
        BpuError: The text does not parse, or the module is invalid; the message starts with
            ``name:line``.
    """
    deep = too_deep(text)
    if deep is not None:
        line = text.count('\n', 0, deep) + 1
        raise BpuError(f'{name}:{line}: brackets nested deeper than {MAX_NESTING}')
    try:
        parser = ModuleParser(_context(), text, name)
        module = parser.parse_module()
    except ParseError as error:
        location = error.span.get_location()
        raise BpuError(f'{location.file}:{location.line}:{location.col}: '
                       f'{_first_line(error.msg)}') from None
    except (VerifyException, *_XDSL_SLIPS) as error:
        # Types and attributes verify themselves as they are made.
        raise BpuError(f'{name}:{parser.line()}: {_first_line(error)}') from error
    check_structure(module, lambda op: f'{name}:{parser.line_of(op)}')
    if verify:
        verify_module(module, lambda op: f'{name}:{parser.line_of(op)}')
    return module


def read_text(path: str | Path, verify: bool = True) -> ModuleOp:
    """Parse a file; see :func:`parse_text`. A missing file raises BpuError too."""
    content, label = read_bytes(path)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise BpuError(f'cannot read HBIR text from {path}: {error}') from None
    return parse_text(text.replace('\r\n', '\n'), label, verify)


def verify_module(module: ModuleOp, place: Callable[[Operation], str] | None = None) -> None:
    """Verify every operation of a module.

    Args:
        module: The module.
        place: Where an operation is, for the message; by default its name and site.

    Raises:
        BpuError: With the place, the operation and the reason.
    """
    for op in module.walk():
        verify_operation(op, place)


def verify_operation(op: Operation, place: Callable[[Operation], str] | None = None) -> None:
    """The same for one operation, without what is in it."""
    try:
        op.verify(verify_nested_ops=False)
    except (VerifyException, *_XDSL_SLIPS) as error:
        where = place(op) if place else f'at {site_of(op)!r}'
        raise BpuError(f'{where}: {op.name}: {_first_line(error)}') from None


def site_of(op: Operation) -> str:
    """Where in the model an operation comes from: its ``site``, or its named location, or ''."""
    site = op.properties.get('site') or getattr(op.location, 'desc', None)
    return site.data if site is not None else ''


def _first_line(error: Exception | str) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(' ^\t')]
    return ' '.join(lines[:3])


def _context() -> Context:
    context = Context()
    for dialect in (Builtin, Func, Hbir, Qnt, Hbdk, Bpu):
        context.load_dialect(dialect)
    return context
