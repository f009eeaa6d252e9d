"""ONNX forms of elementwise operations: of two tensors, and functions of one."""
from typing import Any, Callable, Dict, Union

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.lowering.onnx_form.rules import writes
from mmdet_bpu.lowering.onnx_form.writer import OnnxWriter
from mmdet_bpu.program.functions import FUNCTIONS
from mmdet_bpu.program.kinds import KINDS


@writes('add', 'sub', 'mul', 'div', 'maximum', 'minimum')
def binary(w: OnnxWriter, op: Op) -> str:
    return w.node(KINDS[op.kind].onnx, [w.operand(op, 0), w.operand(op, 1)], op.site)


@writes('relu')
def relu(w: OnnxWriter, op: Op) -> str:
    return w.node('Relu', [w.operand(op, 0)], op.site)


@writes('scale')
def scale(w: OnnxWriter, op: Op) -> str:
    factor = w.number(op.params['factor'], f'{op.site}/factor')
    return w.node('Mul', [w.operand(op, 0), factor], op.site)


OPERATORS = dict(
    add='Add', sub='Sub', mul='Mul', div='Div', relu='Relu', sigmoid='Sigmoid', exp='Exp', log='Log',
    sin='Sin', cos='Cos', sqrt='Sqrt', reciprocal='Reciprocal', tanh='Tanh', neg='Neg', abs='Abs',
    erf='Erf')
"""Operation of the ``hbir`` dialect -> operator of the same function."""


class Functions:
    """Appends elementwise functions: what a ``form`` of :mod:`mmdet_bpu.program.functions` is written with.

    Args:
        w (OnnxWriter): The graph on the way.
        site (str): Name of every result.
    """

    def __init__(self, w: OnnxWriter, site: str) -> None:
        self._w, self._site = w, site

    def __getattr__(self, name: str) -> Callable[..., str]:
        if name not in OPERATORS:
            raise AttributeError(name)
        return lambda *operands: self._append(OPERATORS[name], *operands)

    def _append(self, kind: str, *operands: Union[str, float], **attributes: Any) -> str:
        tensors = [each if isinstance(each, str) else self._w.number(each, f'{self._site}/number')
                   for each in operands]
        return self._w.node(kind, tensors, self._site, **attributes)

    def rsqrt(self, x: str) -> str:
        return self.reciprocal(self.sqrt(x))

    def swish(self, x: str) -> str:
        return self.mul(x, self.sigmoid(x))

    def clip(self, x: str, min: float, max: float) -> str:
        return self._append('Clip', x, min, max)

    def gelu(self, x: str, approximate: str) -> str:
        return self._append('Gelu', x, approximate=approximate)

    def leaky_relu(self, x: str, slop: float) -> str:
        return self._append('LeakyRelu', x, alpha=slop)

    def softplus(self, x: str, beta: float, threshold: float) -> str:
        """``log(1 + exp(beta x)) / beta``; beyond the threshold both are the same in float32."""
        return self.mul(self._append('Softplus', self.mul(x, beta)), 1.0 / beta)


@writes('unary')
def unary(w: OnnxWriter, op: Op) -> str:
    """A function's own operator, or its form in operators that exist."""
    row = FUNCTIONS.get(op.params['fn'])
    if row is None:
        raise BpuError(f'{op.site}: no ONNX form of {op.params["fn"]}')
    functions, x = Functions(w, op.site), w.operand(op, 0)
    parameters: Dict[str, Any] = {
        name: value for name, value in op.params.items() if name != 'fn'}
    if row.form is not None:
        return row.form(functions, x, op.params)
    return getattr(functions, row.hbir)(x, **row.attributes({**(row.parameters or {}), **parameters}))
