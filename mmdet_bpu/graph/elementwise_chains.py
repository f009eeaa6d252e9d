"""Which captured values are elementwise functions of one value, while they are being captured.

Placement decides the same later, on the operation graph (``quantization/placement.py``), from who
reads what. Here it is only asked which divisions a table may take.
"""
from typing import Callable, Dict, Optional

from torch import Tensor, fx

from mmdet_bpu.graph.sites import function_name
from mmdet_bpu.program.functions import spellings

UNARY = (set(spellings()) - {'relu'}) | {'hardtanh', 'relu6'}
"""Functions of one tensor; a relu leaves the integers of its input as they are."""
BINARY = {'add', 'radd', 'iadd', 'sub', 'subtract', 'isub', 'rsub', 'rdiv', 'rtruediv',
          'maximum', 'minimum'}
"""Of two tensors, or of a tensor and a number."""
FACTORS = {'mul', 'rmul', 'multiply', 'imul', 'div', 'truediv', 'true_divide', 'itruediv'}
"""Likewise, but a number changes the scale of a tensor and nothing else."""
SAME = {'to', 'float', 'type_as', 'type', 'contiguous', 'clone', 'detach', 'dropout', 'alias'}
"""Functions whose result is their first argument."""


class Constants:
    """Data of the ``get_attr`` nodes of a capture.

    Args:
        values (dict[str, Tensor]): Target of the node -> data.
        is_learned (Callable): Whether training changes a tensor.
    """

    def __init__(self, values: Dict[str, Tensor], is_learned: Callable[[Tensor], bool]) -> None:
        self.values = values
        self.is_learned = is_learned

    def is_number(self, value: Tensor) -> bool:
        """Whether all elements are equal and stay so."""
        return value.numel() > 0 and not self.is_learned(value) \
            and bool((value == value.flatten()[0]).all())

    def node_is_number(self, node: fx.Node) -> bool:
        """The same of a ``get_attr`` node."""
        return not node.meta['learned'] and self.is_number(self.values[node.target])


def chain_root(node: fx.Node, constants: Constants,
               known: Optional[Dict[fx.Node, fx.Node]] = None) -> fx.Node:
    """The one value that ``node`` is an elementwise function of; ``node`` itself if there is none."""
    known = {} if known is None else known
    if node not in known:
        known[node] = _root(node, constants, known)
    return known[node]


def _root(node: fx.Node, constants: Constants, known: Dict[fx.Node, fx.Node]) -> fx.Node:
    if node.op != 'call_function' or node.meta.get('dtype') is None:
        return node
    name = function_name(node.target)
    if name in SAME:
        return chain_root(node.args[0], constants, known)
    if not all(constants.node_is_number(n) for n in node.all_input_nodes if n.op == 'get_attr'):
        return node
    variable = [n for n in node.args if isinstance(n, fx.Node) and n.op != 'get_attr']
    if len(variable) == 1 and name in UNARY | BINARY:
        return chain_root(variable[0], constants, known)
    if len(variable) == 2 and name in BINARY | FACTORS and is_one_chain(*variable, constants, known):
        return chain_root(variable[0], constants, known)
    return node


def is_one_chain(left: fx.Node, right: fx.Node, constants: Constants,
                 known: Optional[Dict[fx.Node, fx.Node]] = None) -> bool:
    """Whether a function of both is an elementwise function of one value: a table can hold it.

    Two integers that meet directly (``x * x``) are an operation and no table.
    """
    known = {} if known is None else known
    first, second = chain_root(left, constants, known), chain_root(right, constants, known)
    return first is second and (left is not first or right is not second)
