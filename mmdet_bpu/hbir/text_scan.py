"""Raw text in the middle of a parse, matched at once.

Token by token, the scales and multipliers of all channels of a model would take longer than all
the rest.
"""
import re
from typing import Optional

from xdsl.parser import AttrParser

NUMBER = r'-?\d+(?:\.\d*(?:[eE][+-]?\d+)?)?'
NUMBERS = rf'{NUMBER}(?:\s*,\s*{NUMBER})*'
"""A plain list, ``1, 2.5``, without what is around it."""


def scan(parser: AttrParser, pattern: re.Pattern) -> Optional[re.Match]:
    """Match raw text from the current token on, and go past it where it matches."""
    match = pattern.match(parser.lexer.input.content, parser.pos)
    if match is not None:
        parser._resume_from(match.end())
    return match
