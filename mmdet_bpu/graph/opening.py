"""When a captured call is written out in simpler functions (:mod:`mmdet_bpu.graph.decompositions`).

A decomposition has the signature of the torch function that it opens up. Without a condition every
call is opened that depends on the image; what it returns for a call that it cannot express is
``NotImplemented``.
"""
import functools
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

from torch import Tensor, fx

from mmdet_bpu.graph.elementwise_chains import Constants, is_one_chain
from mmdet_bpu.graph.sites import function_name
from mmdet_bpu.mmcv_operators.level_sampling import weighted_samples

Decomposition = Callable[..., Any]


@dataclass(frozen=True)
class Call:
    """A call that is about to run during a capture.

    Attributes:
        args (tuple), kwargs (dict): Its arguments.
        node_of (Callable): Tensor -> the node that made it from the image, or None.
        constants (Constants): Data of the nodes that do not depend on the image.
    """
    args: Tuple[Any, ...]
    kwargs: dict
    node_of: Callable[[Tensor], Optional[fx.Node]]
    constants: Constants

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument that is given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def depends_on_image(self, value: Any) -> bool:
        """Whether ``value`` is a tensor made from the image."""
        return isinstance(value, Tensor) and self.node_of(value) is not None

    def is_number(self, value: Any) -> bool:
        """Whether ``value`` is a number, or a constant tensor that stands for one."""
        return not isinstance(value, Tensor) or (
            self.node_of(value) is None and self.constants.is_number(value))

    def is_one_chain(self, left: Tensor, right: Tensor) -> bool:
        """Whether both are elementwise functions of one tensor, so that a table can hold them."""
        return is_one_chain(self.node_of(left), self.node_of(right), self.constants)


Condition = Callable[[Call], bool]


def only_where(condition: Condition) -> Callable[[Decomposition], Decomposition]:
    """Open a call only where ``condition`` holds."""

    def mark(decomposition: Decomposition) -> Decomposition:
        decomposition.condition = condition
        return decomposition

    return mark


def unnamed(decomposition: Decomposition) -> Decomposition:
    """Name the sites inside as if they were called where the opened call is."""

    @functools.wraps(decomposition)
    def opened(*args: Any, **kwargs: Any) -> Any:
        return decomposition(*args, **kwargs)

    opened.unnamed = True
    return opened


def inner_names(function: Callable, decomposition: Decomposition) -> Tuple[str, ...]:
    """What an opened call adds to the names of the sites inside."""
    return () if getattr(decomposition, 'unnamed', False) else (function_name(function), )


def opens(decomposition: Decomposition, call: Call) -> bool:
    """Whether a call that depends on the image is opened."""
    condition: Optional[Condition] = getattr(decomposition, 'condition', None)
    return condition is None or condition(call)


ALWAYS_OPENED: Dict[Callable, Decomposition] = {
    weighted_samples: unnamed(weighted_samples.__wrapped__)}
"""Functions of ours that are one call for who runs them at once, and else what they call."""
