"""What a program asks of the machine that runs it, from its shapes alone."""
from math import prod
from typing import Iterable

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.budget import MEMORY_BUDGET, WORK_BUDGET, WORK_OF_A_BYTE
from mmdet_bpu.program.kinds import TABLE
from mmdet_bpu.program.operations import PREFIX
from mmdet_bpu.program.program import Instruction, Program

CARRIER_BYTES = 8
"""Of an element in the widest format that a kernel carries it in, int64 or float64."""
PREPARED_BYTES = 4
"""Of an element of a weight in the format of its carrier, float32."""
TABLE_BYTES = 1 << 17
"""A table with one si16 entry for each si16 input."""
WIDE_WINDOW = 1024
"""Elements of a window from which its sums may leave the float32 carrier (2**24 / 128 / 128);
float64 convolutions copy every window."""

Shape = tuple[int, ...]


def check_budget(program: Program, constants: Iterable[str], stored_bytes: int) -> None:
    """Compare what a verified program asks for with the budget.

    Args:
        program (Program): Its shapes are those that its operations give.
        constants (Iterable[str]): Names of the values that are constants.
        stored_bytes (int): What their file holds of them; two may be the same bytes of it.

    Raises:
        BpuError: It asks for more; the message names the largest share, or the work.
    """
    values, constants = program.values, set(constants)
    held = sum(values[name].type.nbytes for name in constants)
    prepared = sum(_prepared_bytes(program, instruction, constants)
                   for instruction in program.instructions)
    carried, site = max(((_carried_bytes(program, instruction), instruction.site)
                         for instruction in program.instructions), default=(0, ''))
    shares = {'its constants': held, 'what is prepared of them': prepared,
              'its activations': _live_bytes(program, constants),
              f'the instruction at {site[:80]!r}': carried}
    total = sum(shares.values())
    if total > MEMORY_BUDGET:
        largest = max(shares, key=shares.get)
        raise BpuError(f'it asks for {total} bytes, {shares[largest]} of them for {largest}; the '
                       f'budget is {MEMORY_BUDGET}')
    work = sum(_work(program, instruction) for instruction in program.instructions)
    budget = WORK_BUDGET + WORK_OF_A_BYTE * stored_bytes
    if work > budget:
        raise BpuError(f'it asks for {work} operations on elements; the budget of a program with '
                       f'{stored_bytes} bytes of constants is {budget}')


def _shapes(program: Program, instruction: Instruction) -> tuple[list[Shape], list[Shape]]:
    return ([program.values[name].type.shape for name in instruction.inputs],
            [program.values[name].type.shape for name in instruction.outputs])


def _prepared_bytes(program: Program, instruction: Instruction, constants: set[str]) -> int:
    weights = sum(prod(program.values[name].type.shape) for name in instruction.inputs
                  if name in constants)
    return PREPARED_BYTES * weights + (TABLE_BYTES if instruction.op == PREFIX + TABLE else 0)


def _live_bytes(program: Program, constants: set[str]) -> int:
    """Largest sum of activations that are needed at one time."""
    last = {name: step for step, instruction in enumerate(program.instructions)
            for name in (*instruction.inputs, *instruction.outputs)}
    last.update(dict.fromkeys(program.outputs, len(program.instructions)))
    ends: dict[int, list[str]] = {}
    for name, step in last.items():
        if name not in constants:
            ends.setdefault(step, []).append(name)
    live = sum(program.values[name].type.nbytes for name in program.inputs)
    peak = live
    for step, instruction in enumerate(program.instructions):
        live += sum(program.values[name].type.nbytes for name in instruction.outputs)
        peak = max(peak, live)
        live -= sum(program.values[name].type.nbytes for name in ends.get(step, ()))
    return peak


def _carried_bytes(program: Program, instruction: Instruction) -> int:
    """Operands, results and what a kernel makes in between, in the widest format."""
    operands, results = _shapes(program, instruction)
    elements = sum(map(prod, operands)) + sum(map(prod, results))
    attrs = instruction.attrs
    if 'pad' in attrs:
        elements += _padded(operands, results, attrs)
    if instruction.op == PREFIX + 'conv2d':
        window = prod(operands[1][1:3])
        wide = window > WIDE_WINDOW or program.values[instruction.inputs[1]].type.dtype == 'si16'
        elements += prod(results[0][:3]) * window * operands[0][3] * wide
    return CARRIER_BYTES * elements


def _padded(operands: list[Shape], results: list[Shape], attrs: dict) -> int:
    """The input with its padding, or the result with what is cut off."""
    transposed = prod(results[0][1:3]) > prod(operands[0][1:3])
    batch, height, width, channels = results[0] if transposed else operands[0]
    top, left, bottom, right = (abs(int(side)) for side in attrs['pad'])
    if attrs.get('ceil_mode'):
        windows = [int(side) * int(step) for side, step in zip(attrs['kernel'], attrs['dilation'])]
        bottom, right = bottom + windows[0], right + windows[1]
    return batch * (height + top + bottom) * (width + left + right) * channels


def _work(program: Program, instruction: Instruction) -> int:
    """Multiplications, or elements that are looked at."""
    operands, results = _shapes(program, instruction)
    name = instruction.op.removeprefix(PREFIX)
    outputs = max(map(prod, results))
    if name in ('conv2d', 'conv_transpose2d', 'deform_conv2d', 'linear'):
        factor = prod(operands[1][1:])
    elif name == 'matmul':
        factor = operands[0][-1]
    else:
        factor = prod(int(side) for side in instruction.attrs.get('kernel', ()))
    return max(outputs * max(factor, 1), *map(prod, operands))
