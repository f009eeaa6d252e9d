"""How much an instruction asks of the units of a core, from its shapes alone."""
from dataclasses import dataclass
from math import prod

from mmdet_bpu.program.kinds import Cost, operations_of
from mmdet_bpu.program.program import Instruction, Program

LANES = 16
"""Channels that the MAC array takes in and gives out at once, in one group of a convolution; fewer
leave lanes idle, so a depthwise product fills one of 16. Assumed."""
CORNERS = 4
"""Values that a bilinear sample reads."""
CONVOLUTIONS = ('bpu.conv2d', 'bpu.conv_transpose2d', 'bpu.deform_conv2d')
FREE_OPS = operations_of(Cost.FREE)
MAC_ARRAY, VECTOR, NO_UNIT = 'MAC array', 'vector unit', ''


@dataclass(frozen=True)
class Work:
    """Of one instruction.

    Attributes:
        unit (str): Which it keeps busy most; :data:`NO_UNIT` if none.
        macs (int): Multiply-accumulates.
        slots (int): The same with idle lanes; int16 operands not counted twice.
        vector_bytes (int): Through the vector unit.
        int16 (bool): Whether it reads int16; of a product, as one of its two factors.
    """
    unit: str
    macs: int = 0
    slots: int = 0
    vector_bytes: int = 0
    int16: bool = False

    @property
    def filled(self) -> float:
        """Part of the MAC array's lanes that work, in (0, 1]; 1 without a product."""
        return self.macs / self.slots if self.slots else 1.0


def count_macs(program: Program, instruction: Instruction) -> int:
    """Multiply-accumulates of an instruction's product; 0 for all but products."""
    return prod(_product(program, instruction))


def work_of(program: Program, instruction: Instruction) -> Work:
    """What an instruction asks of the units."""
    if instruction.op in FREE_OPS:
        return Work(NO_UNIT)
    inputs = [program.values[name].type for name in instruction.inputs]
    outputs = [program.values[name].type for name in instruction.outputs]
    positions, depth, filters = _product(program, instruction)
    if positions:
        sampled = 0
        if instruction.op == 'bpu.deform_conv2d':
            sampled = CORNERS * positions * inputs[0].shape[-1]
        return Work(MAC_ARRAY, positions * depth * filters,
                    positions * filled_lanes(depth) * filled_lanes(filters), sampled,
                    any(kind.dtype == 'si16' for kind in inputs[:2]))
    moved = sum(kind.nbytes for kind in (*inputs, *outputs))
    if instruction.op == 'bpu.grid_sample':
        moved = CORNERS * outputs[0].nbytes + inputs[1].nbytes
    return Work(VECTOR, vector_bytes=moved, int16=any(kind.dtype == 'si16' for kind in inputs))


def filled_lanes(channels: int) -> int:
    """Channels with those of idle lanes."""
    return -(-channels // LANES) * LANES


def _product(program: Program, instruction: Instruction) -> tuple[int, int, int]:
    """(positions, channels that are summed, channels that are made); their product are the MACs.

    A position is a pixel and a place in the window, or a row of a matrix. Zeros: not a product.
    """
    shapes = [program.values[name].type.shape for name in instruction.inputs]
    out = program.values[instruction.outputs[0]].type.shape
    if instruction.op == 'bpu.conv_transpose2d':  # every pixel meets every weight of its group once
        channels, *window, depth = shapes[1]
        return prod(shapes[0][:-1]) * prod(window), depth, channels
    if instruction.op in CONVOLUTIONS:
        return prod(out[:-1]) * prod(shapes[1][1:-1]), shapes[1][-1], out[-1]
    if instruction.op in ('bpu.linear', 'bpu.matmul'):
        return prod(out[:-1]), shapes[0][-1], out[-1]
    return 0, 0, 0
