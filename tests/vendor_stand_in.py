"""Packages in the place of the vendor's hbdk4, with the published signatures."""
import sys
from contextlib import contextmanager
from pathlib import Path

COMPUTING = '''
"""Computes what it is given: HBIR in float32, or the integers that our passes make of it."""
from types import SimpleNamespace as Value

import numpy as np
import torch

from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import convert as our_convert
from mmdet_bpu.hbir.reference import FloatReference
from mmdet_bpu.hbir.text import parse_text

INTEGERS = False
OFF_BY = 0  # LSB that the last element of the last output is wrong by
MARCHES = []


class Function:
    def __init__(self, module):
        network = Interpreter(program_from_module(our_convert(module)[0]))
        self.network = network if INTEGERS else FloatReference(module)
        self.inputs, self.outputs = (
            [Value(name=spec.name, type=Value(shape=list(spec.shape), np_dtype=np.dtype(
                spec.dtype.replace('si', 'int') if INTEGERS else 'float32'))) for spec in specs]
            for specs in (network.inputs, network.outputs))
        self.scale = network.outputs[-1].scale

    def feed(self, inputs):
        for value in self.inputs:
            assert isinstance(inputs[value.name], np.ndarray)
            assert inputs[value.name].dtype == value.type.np_dtype
        outputs = self.network.run({n: torch.from_numpy(x) for n, x in inputs.items()})
        found = {name: x.numpy().copy() for name, x in outputs.items()}
        found[self.outputs[-1].name].reshape(-1)[-1] += OFF_BY * (1 if INTEGERS else self.scale)
        return found


class Module:
    def __init__(self, text):
        self.module, self.functions = parse_text(text), []

    @classmethod
    def parse(cls, asm: str):
        return cls(asm)


def convert(m, march, advice=False, advice_path='', **kwargs):
    MARCHES.append(march)
    converted = Module.__new__(Module)
    converted.functions = [Function(m.module)]
    return converted
'''


@contextmanager
def installed(site: Path, source: str):
    """``hbdk4.compiler`` with this source can be imported from the folder ``site`` inside the block."""
    package = site / 'hbdk4'
    (package / 'compiler').mkdir(parents=True)
    (package / '__init__.py').write_text('')
    (package / 'compiler' / '__init__.py').write_text(source)
    sys.path.insert(0, str(site))
    try:
        import hbdk4.compiler
        yield hbdk4.compiler
    finally:
        sys.path.remove(str(site))
        for name in [name for name in sys.modules if name.split('.')[0] == 'hbdk4']:
            del sys.modules[name]
