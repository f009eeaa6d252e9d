"""What the passes know about a module on its way from fake-quantized to integer form."""
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import operations, site_of
from mmdet_bpu.program.dtypes import ELEMENT_TYPES, integer_range
from mmdet_bpu.program.kinds import KINDS, carried_operands, joining_operations, with_weights

FAKE_QUANT = 'qnt.const_fake_quant'
PRODUCTS = tuple(f'hbir.{KINDS[name].hbir}' for name in with_weights())
# Those whose accumulator takes a residual.
RESIDUAL_PRODUCTS = tuple(f'hbir.{KINDS[name].hbir}' for name in with_weights()
                          if 'add' in KINDS[name].joins)
# Operand whose integers the result of a data movement holds; of a top-k, the values.
MOVEMENT = carried_operands()
JOINS = joining_operations()


@dataclass(frozen=True)
class IntType:
    """Storage type (``si8``, ``si16``, ``si32``) and scale of a value."""
    dtype: str
    scale: float


@dataclass
class QuantizedConstant:
    """A float constant and its grid: integers are ``rint(data / scale)``, saturated."""
    data: np.ndarray
    dtype: str
    scale: Any  # float, or array along axis 0

    def integers(self) -> np.ndarray:
        """Integers in the storage type."""
        low, high = integer_range(self.dtype)
        scale = np.asarray(self.scale, np.float32)
        if scale.ndim:
            scale = scale.reshape((-1, ) + (1, ) * (self.data.ndim - 1))
        scaled = np.rint(self.data.astype(np.float32) / scale)  # in float32, as it was trained
        return np.clip(scaled, low, high).astype(ELEMENT_TYPES[self.dtype].user)


@dataclass(frozen=True)
class Factor:
    """The integers that the weights of a product meet.

    Attributes:
        scale (float): What one of them stands for.
        largest (int): Their largest magnitude.
        sample_bits (int): Of samples: bits below the LSB of what they are taken from.
    """
    scale: float
    largest: int
    sample_bits: int = 0


@dataclass
class Product:
    """A product with weights and what follows it up to its rounding.

    Attributes:
        op (Operation): The product.
        residual (SSAValue, optional): Added to the accumulator.
        relu (bool): Whether the accumulator is cut at 0.
        out (IntType): Type of the result; an ``si32`` result has no fake quantizer.
        weight (np.ndarray), weight_scale (np.ndarray), bias (np.ndarray), factor (Factor): Integers
            and scales, filled by the pass that bounds accumulators.
    """
    op: Operation
    residual: Optional[SSAValue] = None
    relu: bool = False
    out: Optional[IntType] = None
    weight: Optional[np.ndarray] = None
    weight_scale: Optional[np.ndarray] = None
    bias: Optional[np.ndarray] = None
    factor: Optional[Factor] = None


class Form(Enum):
    """How a value gets its integers."""

    ROUNDED = 'an operation and its rounding'
    PRODUCT = 'a product and its rounding'
    TABLE = 'the end of a table'
    CARRIED = 'the integers of another value'
    FLOAT = 'a value that is never integers'


@dataclass(frozen=True)
class Decision:
    """What the quantized graph decided about one value of the module.

    Attributes:
        site (str): Where the value is made.
        value (SSAValue): Result of its fake quantizer, or the value where it has none.
        form (Form): See there.
        source (SSAValue, optional): The product before anything is added to it; the root of the
            table; the value whose integers are carried.
        residual (SSAValue, optional): What is added to a product's accumulator.
        relu (bool): Whether the accumulator, or the sum, is cut at 0.
        factor (float): Scale of carried integers over that of their source.
    """
    site: str
    value: SSAValue
    form: Form
    source: Optional[SSAValue] = None
    residual: Optional[SSAValue] = None
    relu: bool = False
    factor: float = 1.0


@dataclass
class TableMatch:
    """A chain of elementwise functions of one value: ``evaluate`` maps float64 to float64."""
    root: SSAValue
    evaluate: Any
    functions: Tuple[str, ...]


@dataclass
class Conversion:
    """State of the pipeline.

    Attributes:
        module (ModuleOp): The fake-quantized module; never changed.
        metadata (dict): Kept in the integer module.
        decisions (Sequence[Decision]): What the module was written from, where that is known.
        integers (dict[SSAValue, IntType]): Which of its values hold integers, and their scale.
        moved (dict[SSAValue, IntType]): Integers of a movement that a fake quantizer rounds again.
        constants (dict[SSAValue, QuantizedConstant]): Results of fake quantizers of constants.
        rounded (dict[SSAValue, Operation]): Value -> the fake quantizer that rounds it.
        products (dict[Operation, Product]): Fake quantizer, or unrounded product -> product.
        tables (dict[Operation, TableMatch]): Fake quantizer -> chain that it rounds.
        absorbed (set[Operation]): Operations that are part of a product or a table.
        activated (set[Operation]): Additions whose rounding comes after a relu.
        promotions (dict[tuple, str]): (operation, operand index) -> wider storage type.
        notes (list[dict]): What the user should know: site, pass, what was done.
        emitted (dict[SSAValue, SSAValue]): Fake-quantized value -> the same value in ``result``.
        result (ModuleOp, optional): The integer module.
    """
    module: ModuleOp
    metadata: dict = field(default_factory=dict)
    decisions: Sequence[Decision] = ()
    integers: Dict[SSAValue, IntType] = field(default_factory=dict)
    moved: Dict[SSAValue, IntType] = field(default_factory=dict)
    constants: Dict[SSAValue, QuantizedConstant] = field(default_factory=dict)
    rounded: Dict[SSAValue, Operation] = field(default_factory=dict)
    products: Dict[Operation, Product] = field(default_factory=dict)
    tables: Dict[Operation, TableMatch] = field(default_factory=dict)
    absorbed: set = field(default_factory=set)
    activated: set = field(default_factory=set)
    promotions: Dict[tuple, str] = field(default_factory=dict)
    notes: List[dict] = field(default_factory=list)
    emitted: Dict[SSAValue, SSAValue] = field(default_factory=dict)
    result: Optional[ModuleOp] = None

    def operations(self) -> List[Operation]:
        """Operations of the fake-quantized module in order."""
        return list(operations(self.module))

    def integer(self, value: SSAValue, op: Operation) -> IntType:
        """Type of an operand; an error that names ``op`` if it is still in float."""
        if value in self.integers:
            return self.integers[value]
        if value in self.constants:
            constant = self.constants[value]
            return IntType(constant.dtype, float(np.max(constant.scale)))
        raise BpuError(f'{site_of(op)} ({op.name}) reads a value that no fake quantizer rounds')

    def is_integer(self, value: SSAValue) -> bool:
        """Whether a value holds integers (constants too)."""
        return value in self.integers or value in self.constants
