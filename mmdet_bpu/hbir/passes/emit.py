"""What builds the integer module: inputs, operands, constants, types, outputs."""
from typing import Dict, List, Optional

import numpy as np
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import NAME, OpBuilder, constant_array, find_function, site_of
from mmdet_bpu.hbir.passes.conversion import Conversion, IntType
from mmdet_bpu.hbir.types import tensor_type, value_type

SAME = dict(multiplier=[1 << 14], shift=[14])  # the same integers in a wider type


def _is_indices(array: Optional[np.ndarray]) -> bool:
    return array is not None and array.dtype == np.int32


class Emitter:
    """Builds the integer module; the integer forms and the walk are in modules of their own."""

    def __init__(self, conversion: Conversion) -> None:
        self.conversion = conversion
        function = find_function(conversion.module)
        self.arguments = list(function.body.block.args)
        names = [a.data[NAME].data for a in function.arg_attrs.data]
        inputs = []
        for name, argument in zip(names, self.arguments):
            rounding = conversion.rounded.get(argument)
            if rounding is None:
                raise BpuError(f'input {name!r} has no fake quantizer')
            type_ = conversion.integers[rounding.results[0]]
            inputs.append((name, tensor_type(value_type(argument).shape, type_.dtype, type_.scale)))
        self.b = OpBuilder(inputs, dialect='bpu')
        self.ints: Dict[SSAValue, SSAValue] = {}
        self._constants: Dict[tuple, SSAValue] = {}

    def operand(self, value: SSAValue, op: Operation, index: Optional[int] = None) -> SSAValue:
        """Integers of an operand of ``op``; widened where the pass before said so."""
        ssa = self.ints.get(value)
        if ssa is None and value in self.conversion.constants:
            constant = self.conversion.constants[value]
            ssa = self.constant(constant.integers(), float(constant.scale), site_of(op))
        if ssa is None and _is_indices(constant_array(value)):
            ssa = self.constant(constant_array(value), None, site_of(op))
        if ssa is None:
            raise BpuError(f'{site_of(op)} ({op.name}) reads a value that no fake quantizer rounds')
        dtype = self.conversion.promotions.get((op, index))
        return ssa if dtype is None else self._widened(ssa, dtype, site_of(op))

    def constant(self, array: np.ndarray, scale, site: str) -> SSAValue:
        """A constant, once for equal data and scale."""
        key = (array.tobytes(), array.shape, array.dtype.str, scale)
        if key not in self._constants:
            self._constants[key] = self.b.constant(array, scale, site=site)
        return self._constants[key]

    def _widened(self, ssa: SSAValue, dtype: str, site: str) -> SSAValue:
        type_ = value_type(ssa)
        data = constant_array(ssa)
        if data is not None:
            return self.constant(data.astype(np.int16), type_.scale, site)
        wide = tensor_type(type_.shape, dtype, type_.scale)
        return self.b.op('bpu.requantize', [ssa], SAME, wide, site=site)

    def type_of(self, value: SSAValue, op: Operation) -> IntType:
        """Storage type and scale of an operand."""
        return self.conversion.integer(value, op)

    def result_type(self, raw: SSAValue, type_: IntType):
        """Integer tensor type of a float value."""
        return tensor_type(value_type(raw).shape, type_.dtype, type_.scale)

    def finish(self, metadata: dict) -> None:
        """Return the outputs under their names."""
        function = find_function(self.conversion.module)
        returned = next(op for op in function.body.block.ops if isinstance(op, ReturnOp))
        names: List[str] = [a.data[NAME].data for a in function.res_attrs.data]
        outputs = []
        for name, value in zip(names, returned.operands):
            if value not in self.ints:
                raise BpuError(f'output {name!r} is not made of integers')
            ssa, type_ = self.ints[value], self.conversion.integers.get(value)
            if type_ is not None and value_type(ssa).scale != np.float32(type_.scale):
                ssa = self.b.op('bpu.requantize', [ssa], SAME, self.result_type(value, type_),
                                site=name)
            outputs.append((name, ssa))
        self.conversion.result = self.b.finish(outputs, metadata)

