"""Elementwise functions: torch's values, through lowering to tables, on every input code."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.graph.opgraph import Op, OpGraph, ValueInfo
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.reference import FloatReference
from mmdet_bpu.lowering.hbir import Scales, lower_graph
from mmdet_bpu.program.functions import FUNCTIONS, HBIR_FUNCTIONS, spellings

RANGES = {'int8': 128, 'int16': 32768}

# Function -> cases of (torch's function, parameters, largest input, smallest input that counts for
# the scale of the result). Oracles are torch's, in float64.
CASES = {
    'sigmoid': [(torch.sigmoid, {}, 8, None)],
    'exp': [(torch.exp, {}, 4, None)],
    'log': [(torch.log, {}, 6, 0.05)],
    'sin': [(torch.sin, {}, 6.3, None)],
    'cos': [(torch.cos, {}, 6.3, None)],
    'sqrt': [(torch.sqrt, {}, 9, 0)],
    'rsqrt': [(torch.rsqrt, {}, 4, 0.2)],
    'reciprocal': [(torch.reciprocal, {}, 4, 0.2)],
    'tanh': [(torch.tanh, {}, 4, None)],
    'neg': [(torch.neg, {}, 3, None)],
    'abs': [(torch.abs, {}, 3, None)],
    'erf': [(torch.erf, {}, 3, None)],
    'silu': [(F.silu, {}, 8, None)],
    'relu': [(torch.relu, {}, 3, None)],
    'clamp': [(lambda x: x.clamp(-1, 2), dict(min=-1, max=2), 3, None),
              (lambda x: x.clamp(max=0.5), dict(max=0.5), 3, None)],
    'gelu': [(F.gelu, dict(approximate='none'), 6, None),
             (lambda x: F.gelu(x, approximate='tanh'), dict(approximate='tanh'), 6, None)],
    'leaky_relu': [(lambda x: F.leaky_relu(x, 0.1), dict(negative_slope=0.1), 3, None)],
    'softplus': [(F.softplus, {}, 6, None),
                 (lambda x: F.softplus(x, 2.0, 5.0), dict(beta=2.0, threshold=5.0), 6, None)],
    'add': [(lambda x: x + 1.5, dict(value=1.5), 3, None)],
    'mul': [(lambda x: x * -2.5, dict(value=-2.5), 3, None)],
    'rsub': [(lambda x: 1 - x, dict(value=1.0), 3, None)],
    'rdiv': [(lambda x: 3 / x, dict(value=3.0), 4, 0.2)],
    'square': [(torch.square, {}, 3, None)],
    'pow': [(lambda x: x**2, dict(exponent=2), 3, None),
            (lambda x: x**3, dict(exponent=3.0), 2, None),
            (lambda x: x**0.5, dict(exponent=0.5), 4, 0),
            (lambda x: x**1.7, dict(exponent=1.7), 4, 0),
            (lambda x: x**-2, dict(exponent=-2), 4, 0.5)],
    'hardsigmoid': [(F.hardsigmoid, {}, 5, None)],
    'hardswish': [(F.hardswish, {}, 5, None)],
    'mish': [(F.mish, {}, 6, None)],
    'elu': [(F.elu, {}, 4, None), (lambda x: F.elu(x, 0.5), dict(alpha=0.5), 4, None)],
    'log1p': [(torch.log1p, {}, 4, 0)],
}
LIST = [pytest.param(name, *case, id=f'{name}-{i}')
        for name, cases in CASES.items() for i, case in enumerate(cases)]


def codes(dtype, scale):
    """Every input of a type as an image (1, 1, H, W), float64."""
    n = RANGES[dtype]
    values = torch.arange(-n, n, dtype=torch.float64) * scale
    return values.view(1, 1, -1, 16)


def lowered(name, parameters, dtypes, scales, shape):
    """HBIR of one function between two fake quantizers."""
    graph = OpGraph()
    graph.values = {v: ValueInfo(tuple(shape), torch.float32) for v in 'xy'}
    graph.inputs, graph.outputs, graph.output_names = ['x'], ['y'], ['y']
    params = {**(FUNCTIONS[name].parameters or {}), **parameters}
    graph.ops = [Op('unary', ['x'], dict(fn=name, **params), 'y', f'head/{name}.0')]
    own = {'x': (dtypes[0], scales[0]), 'y': (dtypes[1], scales[1])}
    return lower_graph(graph, Scales(own))


def test_every_function_has_a_case():
    assert set(CASES) == set(FUNCTIONS)


@pytest.mark.parametrize('name, oracle, parameters, largest, smallest', LIST)
@pytest.mark.parametrize('out_dtype', RANGES)
@pytest.mark.parametrize('in_dtype', RANGES)
def test_integers_are_what_training_rounds_to(name, oracle, parameters, largest, smallest,
                                              in_dtype, out_dtype):
    scale = float(np.float32(largest / RANGES[in_dtype]))
    x = codes(in_dtype, scale)
    real = oracle(x)
    counted = real if smallest is None else real[x.abs() >= smallest]
    counted = counted[torch.isfinite(counted)]
    out_scale = float(np.float32(counted.abs().max() / (RANGES[out_dtype] - 1)))
    module = lowered(name, parameters, (in_dtype, out_dtype), (scale, out_scale), x.shape)
    integer, notes = convert(module)
    program = program_from_module(integer)
    kinds = [i.op for i in program.instructions]
    assert kinds in (['bpu.table', 'bpu.transpose'], ['bpu.table', 'bpu.reshape'],
                     ['bpu.mul', 'bpu.transpose'], ['bpu.mul', 'bpu.reshape'])
    n = RANGES[in_dtype]
    image = torch.arange(-n, n).view(1, -1, 16, 1)
    image = image.to(torch.int8 if in_dtype == 'int8' else torch.int16)
    found = Interpreter(program).run({'x': image})['y'].double().flatten()
    low, high = -RANGES[out_dtype], RANGES[out_dtype] - 1
    expected = (real.flatten() / out_scale).clamp(low, high)
    defined = torch.isfinite(real.flatten())
    assert (found - expected)[defined].abs().max() <= 1.5, 'the real function'
    qat = FloatReference(module).run({'x': (image.double() * scale).float()})['y']
    steps = (qat.double().flatten() / out_scale).round()
    assert (found - steps)[defined].abs().max() <= 1, 'what training rounds to'


@pytest.mark.parametrize('name', [row.name for row in HBIR_FUNCTIONS.values()])
def test_float64_and_float32_agree(name):
    row = FUNCTIONS[name]
    for oracle, parameters, largest, _ in CASES[name]:
        low = max(-largest, row.domain[0])
        x = torch.linspace(low, largest, 400, dtype=torch.float64)
        attributes = row.attributes({**(row.parameters or {}), **parameters})
        expected = oracle(x).numpy()
        with np.errstate(divide='ignore'):
            np.testing.assert_allclose(row.evaluate(x.numpy(), attributes), expected, rtol=1e-12,
                                       atol=1e-12)
        found = row.torch_function()(x.float(), **attributes)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', ['log', 'sqrt', 'rsqrt'])
def test_an_input_outside_the_domain_is_its_edge(name):
    module = lowered(name, {}, ('int8', 'int16'), (0.1, 0.001), (1, 1, 16, 16))
    program = program_from_module(convert(module)[0])
    image = torch.arange(-128, 128).view(1, 16, 16, 1).to(torch.int8)
    found = Interpreter(program).run({'x': image})['y'].flatten()
    edge = {'log': -32768, 'sqrt': 0, 'rsqrt': 32767}[name]
    assert set(found[:129].tolist()) == {edge}, 'all negative inputs, and zero'


def test_spellings_name_functions_of_torch():
    for name in spellings():
        assert any(hasattr(place, name) for place in (torch, F, torch.Tensor)), name
    assert math.inf not in FUNCTIONS['log'].domain[:1]
