"""What a module of this package is made of: one function of operations in a row."""
from typing import Callable

from xdsl.dialects.builtin import ModuleOp, StringAttr, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import BlockArgument, Operation, SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.text_limits import shape_fault

DIALECTS = ('hbir.', 'qnt.', 'bpu.')


def check_structure(module: ModuleOp, place: Callable[[Operation], str]) -> None:
    """Check that a module is one function of one block, each value made before it is used.

    Args:
        module (ModuleOp): Parsed, not verified yet.
        place (Callable): Where an operation is, for the message.

    Raises:
        BpuError: With the place, the operation and the reason.
    """
    functions = list(module.ops)
    for op in functions:
        if not isinstance(op, FuncOp):
            raise BpuError(f'{place(op)}: {op.name}: expected a function')
    if len(functions) != 1:
        raise BpuError(f'{place(module)}: expected a module with one function, found '
                       f'{len(functions)}')
    function, = functions
    blocks = list(function.body.blocks)
    if len(blocks) != 1 or not isinstance(blocks[0].last_op, ReturnOp):
        raise BpuError(f'{place(function)}: {function.name}: expected one block that ends with '
                       f'return, found {len(blocks)}')
    made: set[SSAValue] = set(blocks[0].args)
    for op in blocks[0].ops:
        fault = _fault(op, op is blocks[0].last_op, made)
        if fault is not None:
            raise BpuError(f'{place(op)}: {op.name}: {fault}')
        made.update(op.results)


def _fault(op: Operation, last: bool, made: set[SSAValue]) -> str | None:
    if op.regions or op.successors:
        return 'an operation here has no regions and no successors'
    if isinstance(op, ReturnOp) != last or not (last or op.name.startswith(DIALECTS)):
        return f'expected an operation of {", ".join(DIALECTS)} before one return'
    for index, value in enumerate(op.operands):
        if value not in made:
            what = 'argument' if isinstance(value, BlockArgument) else 'value'
            return f'operand {index} is a {what} that is not made before'
    for value in (*op.operands, *op.results):
        if isinstance(value.type, TensorType):
            fault = shape_fault(tuple(value.type.get_shape()))
            if fault is not None:
                return fault
    desc = getattr(op.location, 'desc', None)
    if desc is not None and not isinstance(desc, StringAttr):
        return f'expected a location with a name, found {str(desc)[:80]}'
    return None
