"""Elementwise functions of one value, one row each: torch's names, HBIR, float64, float32.

A chain of them that ends in one rounding becomes one table (``hbir/passes/find_tables.py``), so a
row is all that a new function needs. Where HBIR has no operation for it, its ``form`` writes it in
operations that exist; no quantizer stands inside.
"""
import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F

LARGEST_FLOAT = float(np.finfo(np.float32).max)

Form = Callable[[Any, Any, Mapping[str, Any]], Any]
"""(h, x, parameters) -> value: ``h.mul(x, 2.0)`` appends ``hbir.mul``; operands are values or
numbers."""


@dataclass(frozen=True)
class Function:
    """One elementwise function.

    Attributes:
        name (str): In the operation graph, and of the torch function.
        hbir (str): Its own operation of the ``hbir`` dialect, without prefix; '' if it has none.
        real (Callable, optional): Its values: float64 array and the attributes of the operation
            -> float64 array. For functions with an operation.
        reference (Callable, optional): The same on float32 tensors, as torch computes it. Defaults
            to the function of torch with its name.
        form (Callable, optional): See :data:`Form`. For functions without an operation.
        spellings (tuple[str]): Further names of torch functions with the same arguments.
        parameters (dict[str, Any]): Scalar arguments after the tensor, in order, with torch's
            defaults.
        attributes (Callable): Parameters -> attributes of the operation.
        domain (tuple[float, float]): Where it is defined; a table clamps its input to it.
    """
    name: str
    hbir: str = ''
    real: Optional[Callable[..., np.ndarray]] = None
    reference: Optional[Callable[..., torch.Tensor]] = None
    form: Optional[Form] = None
    spellings: Tuple[str, ...] = ()
    parameters: Mapping[str, Any] = None
    attributes: Callable[[Mapping[str, Any]], dict] = lambda parameters: {}
    domain: Tuple[float, float] = (-math.inf, math.inf)

    def evaluate(self, x: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
        """Values in float64, the input clamped to the domain."""
        if self.domain != (-math.inf, math.inf):
            x = np.clip(x, *self.domain)
        return self.real(x, **attributes)

    def torch_function(self) -> Callable[..., torch.Tensor]:
        """The float32 reference."""
        return self.reference or getattr(torch, self.name)


def _erf(x: np.ndarray) -> np.ndarray:
    return torch.erf(torch.from_numpy(np.ascontiguousarray(x, np.float64))).numpy()


def _gelu(x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == 'tanh':
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _softplus(x: np.ndarray, beta: float, threshold: float) -> np.ndarray:
    return np.where(x * beta > threshold, x, np.log1p(np.exp(np.minimum(x * beta, 700.0))) / beta)


def _clip_attributes(parameters: Mapping[str, Any]) -> dict:
    low, high = parameters.get('min'), parameters.get('max')
    return dict(min=-LARGEST_FLOAT if low is None else float(low),
                max=LARGEST_FLOAT if high is None else float(high))


def _hard_sigmoid(h: Any, x: Any, p: Mapping[str, Any]) -> Any:
    return h.clip(h.add(h.mul(x, 1 / 6), 0.5), min=0.0, max=1.0)


def _elu(h: Any, x: Any, p: Mapping[str, Any]) -> Any:
    """``max(x, 0) + alpha * (exp(min(x, 0)) - 1)``."""
    low = h.clip(x, min=-LARGEST_FLOAT, max=0.0)
    return h.add(h.relu(x), h.mul(h.add(h.exp(low), -1.0), float(p['alpha'])))


def _power(h: Any, x: Any, p: Mapping[str, Any]) -> Any:
    """Whole exponents by products, halves by roots, others as ``exp(exponent * log(x))``."""
    exponent = float(p['exponent'])
    if exponent in (0.5, -0.5):
        return h.sqrt(x) if exponent > 0 else h.rsqrt(x)
    if exponent != int(exponent) or not 0 < abs(exponent) <= 8:
        return h.exp(h.mul(h.log(x), exponent))
    value = x
    for _ in range(int(abs(exponent)) - 1):
        value = h.mul(value, x)
    return value if exponent > 0 else h.reciprocal(value)


NOT_NEGATIVE = (0.0, math.inf)

_ROWS = (
    Function('sigmoid', 'sigmoid', lambda x: 1 / (1 + np.exp(-x))),
    Function('exp', 'exp', np.exp),
    Function('log', 'log', np.log, domain=NOT_NEGATIVE),
    Function('sin', 'sin', np.sin),
    Function('cos', 'cos', np.cos),
    Function('sqrt', 'sqrt', np.sqrt, domain=NOT_NEGATIVE),
    Function('rsqrt', 'rsqrt', lambda x: 1 / np.sqrt(x), domain=NOT_NEGATIVE),
    Function('reciprocal', 'reciprocal', lambda x: 1 / x),
    Function('tanh', 'tanh', np.tanh),
    Function('neg', 'neg', np.negative, spellings=('negative', )),
    Function('abs', 'abs', np.abs, spellings=('absolute', )),
    Function('erf', 'erf', _erf),
    Function('silu', 'swish', lambda x: x / (1 + np.exp(-x)), F.silu),
    Function('relu', 'relu', lambda x: np.maximum(x, 0)),
    Function('clamp', 'clip', lambda x, min, max: np.clip(x, min, max), torch.clamp,
             spellings=('clip', ), parameters=dict(min=None, max=None),
             attributes=_clip_attributes),
    Function('gelu', 'gelu', _gelu, F.gelu, parameters=dict(approximate='none'), attributes=dict),
    Function('leaky_relu', 'leaky_relu', lambda x, slop: np.where(x > 0, x, x * slop),
             lambda x, slop: F.leaky_relu(x, slop), parameters=dict(negative_slope=0.01),
             attributes=lambda p: dict(slop=float(p['negative_slope']))),
    Function('softplus', 'softplus', _softplus, F.softplus,
             parameters=dict(beta=1.0, threshold=20.0),
             attributes=lambda p: {key: float(value) for key, value in p.items()}),
    Function('add', form=lambda h, x, p: h.add(x, p['value'])),
    Function('mul', form=lambda h, x, p: h.mul(x, p['value'])),
    Function('rsub', form=lambda h, x, p: h.sub(p['value'], x)),
    Function('rdiv', form=lambda h, x, p: h.div(p['value'], x)),
    Function('square', form=lambda h, x, p: h.mul(x, x)),
    Function('pow', form=_power, parameters=dict(exponent=None)),
    Function('hardsigmoid', form=_hard_sigmoid),
    Function('hardswish', form=lambda h, x, p: h.mul(x, _hard_sigmoid(h, x, p))),
    Function('mish', form=lambda h, x, p: h.mul(x, h.tanh(h.softplus(x, beta=1.0,
                                                                     threshold=20.0)))),
    Function('elu', form=_elu, parameters=dict(alpha=1.0)),
    Function('log1p', form=lambda h, x, p: h.log(h.add(x, 1.0))),
)

FUNCTIONS: Dict[str, Function] = {row.name: row for row in _ROWS}
"""Name in the operation graph -> row."""

WITH_VALUE = ('add', 'mul', 'rsub', 'rdiv')
"""Functions of a tensor and a number: binary operations of torch, made by their handler."""

HBIR_FUNCTIONS: Dict[str, Function] = {f'hbir.{row.hbir}': row for row in _ROWS if row.hbir}
"""Operation of the ``hbir`` dialect -> row."""


def spellings() -> Dict[str, Function]:
    """Name of a torch function -> row, for the functions that torch calls by a name."""
    return {name: row for row in _ROWS if row.name not in WITH_VALUE
            for name in (row.name, *row.spellings)}
