"""Sites: stable identities of torch function calls inside a detector.

A site is one call of one torch function on the tensor path. Its runtime key is the chain of
enclosing module calls, the code line, the function and the repetition of that line. A chain
link is (module path, calling line, repetition); it starts at a region, see
:meth:`mmdet_bpu.families.base.Family.regions`.
"""
import sys
import threading
import weakref
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch import nn
from torch.nn.modules import module as module_internals

# Frames of these files only pass a call on: the calling line is above them.
_TRANSPARENT = tuple(
    m.__file__ for m in (module_internals, torch.overrides, torch.nn.functional, torch.functional,
                         torch._tensor)) + (__file__, )
_local = threading.local()


def calling_line(depth: int = 2) -> Tuple[str, int]:
    """(file, line) of the nearest caller outside torch's own plumbing."""
    frame = sys._getframe(depth)
    while frame is not None and frame.f_code.co_filename in _TRANSPARENT:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def function_name(func: Callable) -> str:
    """A readable name: ``__iadd__`` -> ``iadd``, ``relu_`` -> ``relu_``, ``Tensor.T`` -> ``T``."""
    name = getattr(func, '__name__', str(func))
    if name == '__get__':
        name = func.__self__.__name__
    return name.strip('_') if name.startswith('__') else name


class Link:
    """One module call, or one function written out in simpler ones.

    Attributes:
        key (tuple): Runtime key of the call.
        path (str): Path of the innermost module.
        opened (tuple[str]): Names of the written-out functions around, outermost first.
        counts (dict): Repetitions counted inside the call.
    """
    __slots__ = ('key', 'path', 'opened', 'counts')

    def __init__(self, key: tuple, path: str, opened: Tuple[str, ...] = ()) -> None:
        self.key = key
        self.path = path
        self.opened = opened
        self.counts: Dict[tuple, int] = {}

    def copy(self) -> 'Link':
        """The same call with the same repetitions counted so far."""
        twin = Link(self.key, self.path, self.opened)
        twin.counts = dict(self.counts)
        return twin

    def repetition(self, what: tuple) -> int:
        """How often ``what`` happened before inside this call; counts it."""
        index = self.counts.get(what, 0)
        self.counts[what] = index + 1
        return index


class SiteTracker:
    """Keeps the chain of module calls while a detector runs.

    Args:
        root (nn.Module): The detector; module paths are relative to it.

    Attributes:
        extra_queries (int): Denoising queries of an image that this forward has made.
        batch (int): Images that they were made for.
    """

    def __init__(self, root: nn.Module) -> None:
        self._root = weakref.ref(root)
        self._paths = {id(m): name for name, m in root.named_modules(remove_duplicate=True)}
        self.start()

    def start(self) -> None:
        """Forget the last forward."""
        self.stack: List[Link] = []
        self.extra_queries, self.batch = 0, 1

    def place(self) -> tuple:
        """Where the forward is now; see :meth:`go_to`."""
        return [link.copy() for link in self.stack], self.extra_queries, self.batch

    def go_to(self, place: tuple) -> None:
        """Go on from a place that the forward was at."""
        stack, self.extra_queries, self.batch = place
        self.stack = [link.copy() for link in stack]

    def belongs_to(self, root: nn.Module) -> bool:
        """False after a deepcopy: the copy needs a tracker of its own."""
        return self._root() is root

    @contextmanager
    def region(self, name: str) -> Iterator[None]:
        """Start a chain: everything inside is on the tensor path."""
        saved, self.stack = self.stack, [Link((name, ), '')]
        try:
            yield
        finally:
            self.stack = saved

    @contextmanager
    def nested(self, name: str, key: tuple) -> Iterator[None]:
        """A link for a function that is written out in simpler ones."""
        parent = self.stack[-1]
        self.stack.append(Link(key, parent.path, (*parent.opened, name)))
        try:
            yield
        finally:
            self.stack.pop()

    def key(self, func: Callable, line: Tuple[str, int]) -> tuple:
        """Runtime key of a call of ``func`` at ``line``; counts the repetition."""
        link = self.stack[-1]
        what = (line, function_name(func))
        return link.key, what, link.repetition(what)

    @property
    def path(self) -> str:
        """Path of the innermost module."""
        return self.stack[-1].path

    @property
    def opened(self) -> Tuple[str, ...]:
        """Names of the written-out functions around the current call."""
        return self.stack[-1].opened

    def enter(self, module: nn.Module, line: Tuple[str, int]) -> None:
        """A module call begins."""
        parent = self.stack[-1]
        path = self._paths.get(id(module))
        what = (path if path is not None else type(module).__name__, line)
        key = (parent.key, what, parent.repetition(what))
        self.stack.append(Link(key, parent.path if path is None else path))

    def leave(self) -> None:
        """A module call ends."""
        self.stack.pop()


def active_tracker() -> Optional[SiteTracker]:
    """The tracker of the detector that runs in this thread, if any."""
    return getattr(_local, 'tracker', None)


def _before_module(module: nn.Module, inputs: tuple) -> None:
    tracker = active_tracker()
    if tracker is not None and tracker.stack:
        tracker.enter(module, calling_line(3))


def _after_module(module: nn.Module, inputs: tuple, output) -> None:
    tracker = active_tracker()
    if tracker is not None and len(tracker.stack) > 1:
        tracker.leave()


@contextmanager
def tracking(tracker: SiteTracker) -> Iterator[SiteTracker]:
    """Follow module calls with ``tracker`` in this thread."""
    previous = active_tracker()
    _local.tracker = tracker
    tracker.start()
    hooks = [
        module_internals.register_module_forward_pre_hook(_before_module),
        module_internals.register_module_forward_hook(_after_module, always_call=True)
    ] if previous is None else []
    try:
        yield tracker
    finally:
        for hook in hooks:
            hook.remove()
        tracker.start()
        _local.tracker = previous
