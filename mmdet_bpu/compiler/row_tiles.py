"""What a value costs when it is made and read a few rows at a time.

A row of a feature map (N, H, W, C) is (W, C); of any other tensor it is its last dimension. An
operation that makes a row of its result from a window of rows of each operand can run behind its
producer without the whole of what lies between. A product of two activations, a gather, a sample,
a move or a sum over other dimensions cannot. A pooling of a whole map reads rows as they come, but
what it makes is known only at the end.
"""
from math import prod

from mmdet_bpu.program.kinds import tiled_operations
from mmdet_bpu.program.program import Instruction, Program, TensorType

TILED = tiled_operations()
LAST_DIM_ONLY = {'bpu.reduce_sum': 'dims', 'bpu.reduce_max': 'dims', 'bpu.reduce_min': 'dims',
                 'bpu.concat': 'dim'}
"""Operations that are tiled where their attribute names the last dimension and no other."""
GROWING = ('bpu.resize', 'bpu.conv_transpose2d')
"""Operations whose window is two rows of the operand: those around a row of the result."""


def makes_rows(program: Program, instruction: Instruction) -> bool:
    """Whether an instruction makes a few rows of its result from a few of each operand."""
    if instruction.op in TILED:
        return True
    shape = program.values[instruction.inputs[0]].type.shape
    if instruction.op in LAST_DIM_ONLY:
        return _dims(instruction, len(shape)) == [len(shape) - 1]
    if instruction.op == 'bpu.slice':
        return shape[:-1] == program.values[instruction.outputs[0]].type.shape[:-1]
    return False


def reads_rows(program: Program, instruction: Instruction) -> bool:
    """Whether it reads its operands a few rows at a time; a pooling of a whole map does."""
    rank = len(program.values[instruction.inputs[0]].type.shape)
    pools = instruction.op.startswith('bpu.reduce_') and rank == 4 \
        and _dims(instruction, rank) == [1, 2]
    return pools or makes_rows(program, instruction)


def _dims(instruction: Instruction, rank: int) -> list[int]:
    dims = instruction.attrs.get(LAST_DIM_ONLY[instruction.op])
    dims = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    return sorted(dim % rank for dim in dims)


def window_rows(program: Program, instruction: Instruction) -> int:
    """Rows of its first operand that one row of its result needs."""
    if instruction.op == 'bpu.conv2d':
        height = program.values[instruction.inputs[1]].type.shape[1]
        return (height - 1) * (instruction.attrs.get('dilation') or [1])[0] + 1
    if instruction.op in GROWING:
        return 2
    return (instruction.attrs.get('kernel') or [1])[0]


def row_bytes(kind: TensorType) -> int:
    """Of one row."""
    if not kind.shape:
        return kind.nbytes
    rows = prod(kind.shape[:2] if len(kind.shape) == 4 else kind.shape[:-1])
    return kind.nbytes // max(rows, 1)
