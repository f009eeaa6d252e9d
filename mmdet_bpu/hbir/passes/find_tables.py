"""Chains of elementwise functions of one value become one table.

    %c = hbir.clip(%x), %o = hbir.sub(1, %c), %d = hbir.div(%c, %o), %l = hbir.log(%d)
    %y = qnt.const_fake_quant(%l)      ->   %y = table(%x), the whole chain evaluated in float64
"""
from typing import Callable, Dict, Optional, Set

import numpy as np
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.hbir.builder import attrs_of, constant_array
from mmdet_bpu.hbir.passes.conversion import Conversion, TableMatch
from mmdet_bpu.program.functions import HBIR_FUNCTIONS

Function = Callable[[np.ndarray], np.ndarray]


BINARY: Dict[str, Callable] = {
    'hbir.add': np.add, 'hbir.sub': np.subtract, 'hbir.mul': np.multiply, 'hbir.div': np.divide,
    'hbir.max': np.maximum, 'hbir.min': np.minimum
}


SCALED = ('hbir.mul', 'hbir.relu')
"""Elementwise functions whose result may be integers without a rounding of its own."""


class _Chain:
    """What one value is an elementwise function of.

    Attributes:
        inner (set[Operation]): Operations of the chain.
        derived (set[Operation]): Those among them that also make integers for others.
        leaves (set[SSAValue]): The integers that it starts from.
    """

    def __init__(self, conversion: Conversion, look_through: bool) -> None:
        self.conversion, self.look_through = conversion, look_through
        self.inner: Set[Operation] = set()
        self.derived: Set[Operation] = set()
        self.leaves: Set[SSAValue] = set()

    def follow(self, value: SSAValue) -> bool:
        """Walk back to integers; False if something else than a function is on the way."""
        op = value.owner
        if self.conversion.is_integer(value):
            if not (self.look_through and isinstance(op, Operation) and op.name in SCALED):
                self.leaves.add(value)
                return True
            self.derived.add(op)
        array = constant_array(value)
        if array is not None:
            return array.size == 1
        if not isinstance(op, Operation) or op.name not in (*HBIR_FUNCTIONS, *BINARY):
            return False
        self.inner.add(op)
        return all(self.follow(v) for v in op.operands)


def _chain(conversion: Conversion, value: SSAValue) -> Optional[_Chain]:
    """The chain that ends in ``value``, from one leaf.

    Where a scaled or cut copy of a leaf (``x * 0.5``, ``relu(x)``) is a second leaf, it is looked
    through.
    """
    for look_through in (False, True):
        chain = _Chain(conversion, look_through)
        if not chain.follow(value):
            return None
        if len(chain.leaves) == 1:
            return chain
    return None


def _evaluate(value: SSAValue, root: SSAValue, x: np.ndarray, seen: dict) -> np.ndarray:
    if value is root:
        return x
    if value not in seen:
        array = constant_array(value)
        op: Optional[Operation] = value.owner
        if array is not None:
            seen[value] = np.float64(array.flat[0])
        else:
            inputs = [_evaluate(v, root, x, seen) for v in op.operands]
            if op.name in BINARY:
                seen[value] = BINARY[op.name](*inputs)
            else:
                seen[value] = HBIR_FUNCTIONS[op.name].evaluate(inputs[0], attrs_of(op))
    return seen[value]


def _function(value: SSAValue, root: SSAValue) -> Function:

    def evaluate(x: np.ndarray) -> np.ndarray:
        with np.errstate(all='ignore'):
            return np.broadcast_to(_evaluate(value, root, x, {}), x.shape)

    return evaluate


def find_tables(conversion: Conversion) -> None:
    """Fill ``tables``. Two integers that meet directly (``x * x``) stay an operation."""
    for source, fake_quant in conversion.rounded.items():
        op = source.owner
        if fake_quant in conversion.products or not isinstance(op, Operation) \
                or conversion.is_integer(source):
            continue
        if op.name in BINARY and all(conversion.is_integer(v) for v in op.operands):
            continue
        chain = _chain(conversion, source)
        if chain is None:
            continue
        root, = chain.leaves
        if root in conversion.constants:
            continue
        names = tuple(sorted(o.name.split('.')[1] for o in chain.inner))
        conversion.tables[fake_quant] = TableMatch(root, _function(source, root), names)
        conversion.absorbed |= chain.inner - chain.derived
