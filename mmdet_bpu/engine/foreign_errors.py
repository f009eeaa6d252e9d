"""What other programs raise, in one line."""
import linecache
from types import FrameType, TracebackType
from typing import List, Tuple

LONGEST = 300
"""Characters of another's message."""


def in_one_line(error: BaseException) -> str:
    """What another program raised, in its own words."""
    words = str(error.args[0] if len(error.args) == 1 else error)
    words = ' '.join(words.split())
    if not words and isinstance(error, AssertionError) and error.__traceback__ is not None:
        frame, line = frames_of(error.__traceback__)[-1]
        words = linecache.getline(frame.f_code.co_filename, line).strip()
    if len(words) > LONGEST:
        words = f'{words[:LONGEST]} ...'
    return f'{type(error).__name__}: {words}' if words else type(error).__name__


def frames_of(trace: TracebackType) -> List[Tuple[FrameType, int]]:
    """Frames with their lines, the one that raised last."""
    found = []
    while trace is not None:
        found.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return found
