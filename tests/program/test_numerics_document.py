"""docs/numerics.md says what the code does: ops, carriers, and a program that parses."""
import re
from pathlib import Path

import pytest
import torch

from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.bpu_dialect import BPU_OPS, BPU_SPECS
from mmdet_bpu.kernels.reference.carriers import CARRIERS
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.program.sampling_grid import axis_sampling
from mmdet_bpu.hbir.text import parse_text, print_text

TEXT = (Path(__file__).parents[2] / 'docs/numerics.md').read_text(encoding='utf-8')


def test_every_op_of_the_dialect_is_defined():
    headings = re.findall(r'^### (.*)$', TEXT, re.M) + re.findall(r'^\| (`bpu.*?`)', TEXT, re.M)
    assert set(re.findall(r'bpu\.\w+', ' '.join(headings))) == set(BPU_OPS)


@pytest.mark.parametrize('name', BPU_SPECS)
def test_every_attribute_of_an_op_is_mentioned(name):
    body = re.sub(r'`m`, `s` stand for.*', '', TEXT)
    sections = re.split(r'^### ', body, flags=re.M)
    section = next(s for s in sections if f'`bpu.{name}`' in s.split('\n')[0]
                   or f'| `bpu.{name}`' in s)
    shorthand = {'multiplier': ' m ', 'shift': '2^s'}
    for attribute in BPU_SPECS[name].attributes:
        own = attribute == 'site' or f'`{attribute}`' in section
        axis = attribute[:2] in ('x_', 'y_') and attribute[2:] in section
        epilogue = name == 'linear' and 'epilogue of conv2d' in section
        assert own or axis or epilogue or shorthand.get(attribute, '\0') in section, attribute


def test_every_carrier_is_listed_with_its_bound():
    rows = dict(re.findall(r'^\| `(\w+)` \| 2\^(\d+) \|', TEXT, re.M))
    assert rows == {name: str(c.bound.bit_length() - 1) for name, c in CARRIERS.items()}


def test_the_program_parses_prints_back_and_runs():
    program, = re.findall(r'```mlir\n(.*?)```', TEXT, re.S)
    module = parse_text(program)
    assert print_text(module).split() == program.split()
    outputs = Interpreter(program_from_module(module)).run({'x': torch.tensor([-3, 100], dtype=torch.int8)})
    assert outputs['y'].tolist() == [0, 200]


def test_the_quoted_position_error_holds():
    assert axis_sampling(167, 1.1 / 2**15).max_error <= 0.0046
