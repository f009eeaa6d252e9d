"""An integer program without its numbers: operations, shapes and types, as JSON.

What an estimate reads is in it; a program of a hundred megabytes becomes a hundred kilobytes.
"""
import json
from pathlib import Path
from typing import Any, Dict

import numpy as np

from mmdet_bpu.program.program import Instruction, Program, TensorType, Value

LONG = 16
"""Attributes of more numbers are left out: multipliers and tables."""


def shapes_of(program: Program) -> Dict[str, Any]:
    """JSON values of a program's operations, shapes and types."""
    numbers = {name: index for index, name in enumerate(program.values)}
    return dict(
        values=[[list(value.type.shape), value.type.dtype, int(value.data is not None)]
                for value in program.values.values()],
        inputs=[numbers[name] for name in program.inputs],
        outputs=[numbers[name] for name in program.outputs],
        instructions=[[each.op.removeprefix('bpu.'), [numbers[name] for name in each.inputs],
                       [numbers[name] for name in each.outputs], each.site,
                       {name: value for name, value in each.attrs.items() if _is_short(value)}]
                      for each in program.instructions])


def program_of(shapes: Dict[str, Any]) -> Program:
    """The program of such shapes; its constants are zeros that take no memory."""
    values = {}
    for index, (shape, dtype, constant) in enumerate(shapes['values']):
        data = np.broadcast_to(np.int8(0), shape) if constant else None
        values[f'%{index}'] = Value(f'%{index}', TensorType(tuple(shape), dtype), data)

    def names(indices: list) -> list:
        return [f'%{index}' for index in indices]

    return Program(values, names(shapes['inputs']), names(shapes['outputs']), [
        Instruction(f'bpu.{op}', names(inputs), names(outputs), attrs, site)
        for op, inputs, outputs, site, attrs in shapes['instructions']])


def write_shapes(program: Program, path: Path, **facts: Any) -> None:
    """Write them, with what else is to be known of the program."""
    text = json.dumps(dict(facts, **shapes_of(program)), separators=(',', ':'))
    path.write_text(text.replace('],["', '],\n["') + '\n')


def read_shapes(path: Path) -> Program:
    """The program that was written."""
    return program_of(json.loads(path.read_text()))


def _is_short(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= LONG
    return not isinstance(value, np.ndarray)
