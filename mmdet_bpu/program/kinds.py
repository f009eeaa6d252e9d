"""Every kind of operation, one row each: what all steps need to know about it.

A row holds names and plain facts. What computes stands elsewhere and registers itself under the
row's name: handlers of torch calls (``graph/canonical*.py``), lowerings (``lowering/``), ONNX forms
(``lowering/onnx_form/``), float references (``hbir/reference*.py``), integer forms
(``hbir/passes/emit_*.py``), kernels (``kernels/``), limits (``compiler/limit_table.py``).
``tests/program/test_kinds.py`` demands all of them for every row. Elementwise functions of one
value are rows of :mod:`mmdet_bpu.program.functions`.
"""
from dataclasses import dataclass, field
from enum import Enum
from typing import Dict, Mapping, Optional, Tuple


class Group(Enum):
    """What an operation does to its operands."""

    PRODUCT = 'product'  # sums of products, carried in int32
    BINARY = 'binary'  # two tensors, element by element
    UNARY = 'unary'  # one tensor; chains become one table
    MOVEMENT = 'movement'  # its result has the integers of one operand
    SHARED = 'shared'  # parts put together, on one scale
    SAMPLED = 'sampled'  # rounds, but on the scale of operand 0
    SIGN = 'sign'  # a mask
    SELECT = 'select'  # several results: integers of an operand, and indices
    REDUCE = 'reduce'  # sums, rounded after


class Cost(Enum):
    """Which unit an operation keeps busy."""

    MAC = 'mac'  # multiply-accumulates of a matrix unit
    VECTOR = 'vector'  # bytes through the vector unit
    FREE = 'free'  # nothing moves


@dataclass(frozen=True)
class Kind:
    """One kind of operation.

    Attributes:
        name (str): In the operation graph.
        group (Group): See there.
        hbir (str): Operation of the ``hbir`` dialect, without prefix.
        integer (str): Operation of the ``bpu`` dialect, without prefix.
        onnx (str): Operator of ONNX.
        carries (int, optional): Operand whose integers the result has.
        hbir_carries (int, optional): The same among the operands in HBIR, where they differ.
        weight (int, optional): Operand that holds weights, quantized per output channel; the next
            one, if there is one, is the bias.
        transposed (bool): Whether torch holds those weights with the input channels first.
        joins (tuple[str]): Kinds that may take its accumulator, the first one first.
        operand_dtypes (dict[int, str]): Operands whose dtype the unit fixes; position -> dtype.
        int8_only (tuple[int]): Operands that are read as int8 and no wider, whatever makes them.
        cost (Cost): See there.
        tiled (bool): Whether it makes a few rows of its result from a few of each operand.
    """
    name: str
    group: Group
    hbir: str
    integer: str
    onnx: str
    carries: Optional[int] = None
    hbir_carries: Optional[int] = None
    weight: Optional[int] = None
    transposed: bool = False
    joins: Tuple[str, ...] = ()
    operand_dtypes: Mapping[int, str] = field(default_factory=dict)
    int8_only: Tuple[int, ...] = ()
    cost: Cost = Cost.VECTOR
    tiled: bool = False

    @property
    def shares(self) -> bool:
        """Whether its operands are brought on one scale, which its result has too."""
        return self.group is Group.SHARED or (
            self.group is Group.BINARY and self.carries is not None)


def _movement(name: str, hbir: str, integer: str, onnx: str, **facts) -> Kind:
    return Kind(name, Group.MOVEMENT, hbir, integer, onnx, **{'carries': 0, **facts})


_ROWS = (
    Kind('conv2d', Group.PRODUCT, 'conv2d', 'conv2d', 'Conv', weight=1, joins=('add', 'relu'),
         cost=Cost.MAC, tiled=True),
    # Operands: input, weight, bias, offset, mask (v2 only).
    Kind('deform_conv2d', Group.PRODUCT, 'deform_conv2d', 'deform_conv2d', 'DeformConv', weight=1,
         joins=('relu', ), operand_dtypes={3: 'int16', 4: 'int8'}, cost=Cost.MAC),
    Kind('conv_transpose2d', Group.PRODUCT, 'convtranspose', 'conv_transpose2d', 'ConvTranspose',
         weight=1, transposed=True, joins=('add', 'relu'), cost=Cost.MAC, tiled=True),
    Kind('linear', Group.PRODUCT, 'linear', 'linear', 'MatMul', weight=1, joins=('add', 'relu'),
         cost=Cost.MAC, tiled=True),
    Kind('matmul', Group.PRODUCT, 'matmul', 'matmul', 'MatMul', cost=Cost.MAC,
         operand_dtypes={0: 'int8', 1: 'int8'}),
    Kind('add', Group.BINARY, 'add', 'add', 'Add', joins=('relu', ), tiled=True),
    Kind('sub', Group.BINARY, 'sub', 'sub', 'Sub', tiled=True),
    Kind('mul', Group.BINARY, 'mul', 'mul', 'Mul', tiled=True),
    # Only inside a chain of functions of one value, which becomes a table.
    Kind('div', Group.BINARY, 'div', '', 'Div'),
    Kind('maximum', Group.BINARY, 'max', 'max', 'Max', carries=0, tiled=True),
    Kind('minimum', Group.BINARY, 'min', 'min', 'Min', carries=0, tiled=True),
    Kind('unary', Group.UNARY, '', 'table', '', tiled=True),
    Kind('scale', Group.UNARY, 'mul', '', 'Mul', carries=0),
    _movement('relu', 'relu', 'relu', 'Relu', tiled=True),
    Kind('sum', Group.REDUCE, 'reduce_sum', 'reduce_sum', 'ReduceSum'),
    Kind('mean', Group.REDUCE, 'reduce_mean', 'reduce_sum', 'ReduceMean'),
    _movement('amax', 'reduce_max', 'reduce_max', 'ReduceMax'),
    _movement('amin', 'reduce_min', 'reduce_min', 'ReduceMin'),
    _movement('max_pool2d', 'max_pool', 'max_pool', 'MaxPool', tiled=True),
    Kind('avg_pool2d', Group.REDUCE, 'avg_pool', 'avg_pool', 'AveragePool', tiled=True),
    _movement('reshape', 'reshape', 'reshape', 'Reshape', cost=Cost.FREE),
    _movement('permute', 'transpose', 'transpose', 'Transpose'),
    _movement('pad', 'pad', 'pad', 'Pad'),
    _movement('slice', 'slice', 'slice', 'Slice'),
    _movement('flip', 'flip', 'flip', 'Slice'),
    _movement('roll', 'roll', 'roll', 'Concat'),
    _movement('expand', 'tile', 'tile', 'Expand'),
    _movement('tile', 'tile', 'tile', 'Tile'),
    _movement('gather', 'gather_elements', 'gather', 'GatherElements'),
    _movement('where', 'where', 'where', 'Where', carries=1, hbir_carries=2, tiled=True),
    Kind('positive', Group.SIGN, 'greater', 'positive', 'Greater', tiled=True),
    Kind('not_negative', Group.SIGN, 'greater_equal', 'not_negative', 'GreaterOrEqual',
         tiled=True),
    Kind('concat', Group.SHARED, 'concat', 'concat', 'Concat', carries=0),
    Kind('select', Group.SHARED, 'where', 'where', 'Where', carries=1, hbir_carries=2, tiled=True),
    Kind('stack', Group.SHARED, 'concat', 'concat', 'Concat', carries=0),
    Kind('grid_sample', Group.SAMPLED, 'grid_sample', 'grid_sample', 'GridSample',
         operand_dtypes={0: 'int8', 1: 'int16'}, int8_only=(0, )),
    _movement('resize_nearest', 'resize2d', 'resize', 'Resize', int8_only=(0, ), tiled=True),
    Kind('resize_bilinear', Group.SAMPLED, 'resize2d', 'resize', 'Resize', int8_only=(0, ),
         tiled=True),
    Kind('topk', Group.SELECT, 'topk', 'topk', 'TopK', carries=0),
)

KINDS: Dict[str, Kind] = {row.name: row for row in _ROWS}
"""Name -> row."""

IMAGE_CONVERT, IMAGE_PREPROCESS = 'image_convert', 'image_preprocess'
"""Operations of both dialects that no kind asks for: the head of a program that a camera feeds."""

REQUANTIZE, TABLE = 'requantize', 'table'
"""Operations of the ``bpu`` dialect that no kind asks for by name: a change of scale or width, and
what a chain of elementwise functions becomes."""


def of_group(*groups: Group) -> Tuple[str, ...]:
    """Names of the kinds of some groups."""
    return tuple(row.name for row in _ROWS if row.group in groups)


def sharing() -> Tuple[str, ...]:
    """Names of the kinds whose operands share one scale."""
    return tuple(row.name for row in _ROWS if row.shares)


def with_weights() -> Tuple[str, ...]:
    """Names of the kinds whose weights have scales of their own."""
    return tuple(row.name for row in _ROWS if row.weight is not None)


def carried_operands() -> Dict[str, int]:
    """HBIR operation -> operand whose integers its result has, data movement and joins.

    Of a join, whose operands share a scale, one of them; it may be a constant.
    """
    return {f'hbir.{row.hbir}': row.carries if row.hbir_carries is None else row.hbir_carries
            for row in _ROWS if row.carries is not None and row.group is not Group.UNARY}


def joining_operations() -> frozenset:
    """``hbir`` operations whose operands share a scale."""
    return frozenset(f'hbir.{row.hbir}' for row in _ROWS if row.shares)


def stands_for() -> Dict[str, str]:
    """``bpu`` operation -> the ``hbir`` operation as whose limits it is judged."""
    named: Dict[str, str] = {}
    for row in _ROWS:
        if row.integer and row.hbir:
            named.setdefault(f'bpu.{row.integer}', f'hbir.{row.hbir}')
    return named


def tiled_operations() -> frozenset:
    """``bpu`` operations that make a few rows of their result from a few of each operand."""
    return frozenset(f'bpu.{row.integer}' for row in _ROWS if row.tiled) | {f'bpu.{REQUANTIZE}'}


def operations_of(cost: Cost) -> frozenset:
    """``bpu`` operations of a cost class."""
    return frozenset(f'bpu.{row.integer}' for row in _ROWS if row.cost is cost and row.integer)
