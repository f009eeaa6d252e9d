"""Run part of the pipeline, and compare integers with the float reference."""
from typing import Callable

import pytest
import torch

from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.program.numerics import saturate
from mmdet_bpu.hbir.passes import PIPELINE, convert, run_pipeline
from mmdet_bpu.hbir.reference import FloatReference


@pytest.fixture
def up_to() -> Callable:
    """``up_to(module, name)``: the Conversion after the pass of that name."""

    def run(module, name):
        names = [step.name for step in PIPELINE]
        return run_pipeline(module, PIPELINE[:names.index(name) + 1])

    return run


@pytest.fixture
def largest_lsb() -> Callable:
    """``largest_lsb(module)``: distance of integers from the float reference, over all outputs.

    The input is normal noise that reaches both ends of its range.
    """

    def measure(module):
        executable = Interpreter(program_from_module(convert(module)[0]))
        spec = executable.inputs[0]
        noise = torch.randn(spec.shape, generator=torch.Generator().manual_seed(0))
        beyond = 1.1 * 2**(7 if spec.dtype == 'si8' else 15)
        integers = saturate((noise / noise.abs().max() * beyond).round(), spec.dtype)
        found = executable.run({spec.name: integers})
        expected = FloatReference(module).run({spec.name: integers.float() * spec.scale})
        return max(float((found[out.name].double() - (expected[out.name].double() / out.scale)
                          .round()).abs().max()) for out in executable.outputs)

    return measure
