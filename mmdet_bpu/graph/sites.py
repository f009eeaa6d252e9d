"""Sites: stable identities of torch function calls inside a detector.

A site is one call of one torch function on the tensor path. Its runtime key is the chain of
enclosing module calls, the code line, the function and the repetition of that line. A chain
link is (module path, calling line, repetition); it starts at a region, see
:meth:`mmdet_bpu.families.base.Family.regions`.

Keys are long and are made once. A :class:`Moment` stands for all that has happened inside a call so
far, and remembers what came next the first time: where that comes again, its link is known by
comparing three pointers. What comes instead (a branch taken, one repetition more) leads to a moment
of its own.
"""
import sys
import threading
import weakref
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch import nn
from torch.nn.modules import module as module_internals

# Frames of these files only pass a call on: the calling line is above them.
_TRANSPARENT = frozenset(
    m.__file__ for m in (module_internals, torch.overrides, torch.nn.functional, torch.functional,
                         torch._tensor)) | {__file__}
# Moments that a tracker remembers: some detectors have 10,000, and one whose calls are never in the
# same order again must not fill the memory.
_MOST_MOMENTS = 1 << 18
_local = threading.local()


def calling_frame(depth: int = 2) -> FrameType:
    """Frame of the nearest caller outside torch's own plumbing."""
    frame = sys._getframe(depth)
    while frame.f_code.co_filename in _TRANSPARENT and frame.f_back is not None:
        frame = frame.f_back
    return frame


def line_of(frame: FrameType) -> Tuple[str, int]:
    """(file, line) that a frame is at."""
    return frame.f_code.co_filename, frame.f_lineno


def function_name(func: Callable) -> str:
    """A readable name: ``__iadd__`` -> ``iadd``, ``relu_`` -> ``relu_``, ``Tensor.T`` -> ``T``."""
    name = getattr(func, '__name__', str(func))
    if name == '__get__':
        name = func.__self__.__name__
    return name.strip('_') if name.startswith('__') else name


class Link:
    """One call: of a module, of a function, or a region that is entered. One object a key.

    Attributes:
        key (tuple): Runtime key of the call.
        path (str): Path of the innermost module.
        opened (tuple[str]): Names of the written-out functions around, outermost first.
        beginning (Moment): When nothing has happened inside yet.
    """
    __slots__ = ('key', 'path', 'opened', 'beginning', '_inner')

    def __init__(self, key: tuple, path: str) -> None:
        self.key, self.path = key, path
        self.opened: Tuple[str, ...] = ()
        self.beginning = Moment(self, None, None)
        self._inner: Dict[tuple, 'Link'] = {}

    def inner(self, key: tuple, path: str) -> 'Link':
        """The link of that key inside this one."""
        if key not in self._inner:
            self._inner[key] = Link(key, path)
        return self._inner[key]


class Moment:
    """What has happened inside a call so far: every call that was made there, in order.

    Attributes:
        link (Link): The call.
        what (tuple, optional): Line and name of the last call inside; None at the beginning.
        before (Moment, optional): The moment before that call.
        code, offset, callee: What came next the first time: code object and instruction of the
            caller, and what it called.
        next_link, after: That call's link and the moment after it.
        others (dict): The same of what came at other times.
    """
    __slots__ = ('link', 'what', 'before', 'code', 'offset', 'callee', 'next_link', 'after',
                 'others')

    def __init__(self, link: Link, what: Optional[tuple], before: Optional['Moment']) -> None:
        self.link, self.what, self.before = link, what, before
        self.code: Optional[CodeType] = None
        self.others: Optional[Dict[tuple, tuple]] = None

    def repetition(self, what: tuple) -> int:
        """How often ``what`` has happened before."""
        count, moment = 0, self
        while moment is not None:
            count += moment.what == what
            moment = moment.before
        return count


class SiteTracker:
    """Keeps the chain of module calls while a detector runs.

    Args:
        root (nn.Module): The detector; module paths are relative to it.

    Attributes:
        stack (list[Moment]): Where the forward is: in each call around, what has happened so far.
        extra_queries (int): Denoising queries of an image that this forward has made.
        batch (int): Images that they were made for.
    """

    def __init__(self, root: nn.Module) -> None:
        self._root = weakref.ref(root)
        self._paths = {id(m): name for name, m in root.named_modules(remove_duplicate=True)}
        self._regions: Dict[str, Link] = {}
        self._moments = 0
        self.start()

    def start(self) -> None:
        """Forget the last forward."""
        self.stack: List[Moment] = []
        self.extra_queries, self.batch = 0, 1
        if self._moments > _MOST_MOMENTS:
            self._regions, self._moments = {}, 0

    def place(self) -> tuple:
        """Where the forward is now; see :meth:`go_to`."""
        return list(self.stack), self.extra_queries, self.batch

    def go_to(self, place: tuple) -> None:
        """Go on from a place that the forward was at."""
        stack, self.extra_queries, self.batch = place
        self.stack = list(stack)

    def belongs_to(self, root: nn.Module) -> bool:
        """False after a deepcopy: the copy needs a tracker of its own."""
        return self._root() is root

    @contextmanager
    def region(self, name: str) -> Iterator[None]:
        """Start a chain: everything inside is on the tensor path."""
        if name not in self._regions:
            self._regions[name] = Link((name, ), '')
        saved, self.stack = self.stack, [self._regions[name].beginning]
        try:
            yield
        finally:
            self.stack = saved

    @contextmanager
    def nested(self, link: Link, names: Tuple[str, ...]) -> Iterator[None]:
        """Inside a call that is written out in simpler ones, with what it adds to their names."""
        link.opened = (*self.opened, *names)
        self.stack.append(link.beginning)
        try:
            yield
        finally:
            self.stack.pop()

    def call(self, func: Callable, frame: FrameType) -> Link:
        """The link of a call of ``func`` from ``frame``, which happens now."""
        moment = self.stack[-1]
        if moment.code is frame.f_code and moment.offset == frame.f_lasti and (
                moment.callee is func or moment.callee == func):
            self.stack[-1] = moment.after
            return moment.next_link
        known = self._otherwise(moment, frame, func)
        if known is None:
            what = (line_of(frame), function_name(func))
            known = self._learn(moment, frame, func, what, moment.link.path)
        link, self.stack[-1] = known
        return link

    def enter(self, module: nn.Module, frame: FrameType) -> None:
        """A module call begins."""
        path = self._paths.get(id(module))
        callee = type(module) if path is None else path
        moment = self.stack[-1]
        if moment.code is frame.f_code and moment.offset == frame.f_lasti \
                and moment.callee is callee:
            self.stack[-1] = moment.after
            self.stack.append(moment.next_link.beginning)
            return
        known = self._otherwise(moment, frame, callee)
        if known is None:
            what = (type(module).__name__ if path is None else path, line_of(frame))
            known = self._learn(moment, frame, callee, what,
                                moment.link.path if path is None else path)
        link, self.stack[-1] = known
        self.stack.append(link.beginning)

    def leave(self) -> None:
        """A module call ends."""
        self.stack.pop()

    @staticmethod
    def _otherwise(moment: Moment, frame: FrameType,
                   callee: Any) -> Optional[Tuple[Link, Moment]]:
        """(link, moment after) of what came here another time."""
        if moment.others is None:
            return None
        found = moment.others.get((id(frame.f_code), frame.f_lasti, callee))
        return found and found[:2]

    def _learn(self, moment: Moment, frame: FrameType, callee: Any, what: tuple,
               path: str) -> Tuple[Link, Moment]:
        """Remember what comes at ``moment``; (link, moment after)."""
        here = moment.link
        link = here.inner((here.key, what, moment.repetition(what)), path)
        after = Moment(here, what, moment)
        self._moments += 1
        code = frame.f_code
        if moment.code is None:
            moment.code, moment.offset, moment.callee = code, frame.f_lasti, callee
            moment.next_link, moment.after = link, after
        else:
            moment.others = moment.others or {}
            # With the code object itself: another one may not get its id.
            moment.others[id(code), frame.f_lasti, callee] = link, after, code
        return link, after

    @property
    def path(self) -> str:
        """Path of the innermost module."""
        return self.stack[-1].link.path

    @property
    def caller(self) -> tuple:
        """Runtime key of the innermost module call or opened function."""
        return self.stack[-1].link.key

    @property
    def opened(self) -> Tuple[str, ...]:
        """Names of the written-out functions around the current call."""
        return self.stack[-1].link.opened


def active_tracker() -> Optional[SiteTracker]:
    """The tracker of the detector that runs in this thread, if any."""
    return getattr(_local, 'tracker', None)


def _before_module(module: nn.Module, inputs: tuple) -> None:
    tracker = active_tracker()
    if tracker is not None and tracker.stack:
        tracker.enter(module, calling_frame(3))


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
