"""Float executor of fake-quantized HBIR: what every ``hbir`` operation that we emit means.

Values are torch float32 tensors (indices int32, masks bool) in the shapes of the module: feature
maps channels last. A fake quantizer rounds ``x / scale`` half to even, as the trained ones do.
The integer form is judged against this, op by op (:mod:`mmdet_bpu.analysis.qat_vs_int`).
"""
import math
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import NAME, attrs_of, find_function, operations, site_of
from mmdet_bpu.hbir.qnt_dialect import fake_quant_range, fake_quant_scale
from mmdet_bpu.hbir.reference_camera import image_convert, image_preprocess
from mmdet_bpu.hbir.reference_feature_maps import FEATURE_MAPS
from mmdet_bpu.hbir.reference_deformable import deform_conv2d
from mmdet_bpu.hbir.types import value_type
from mmdet_bpu.program.functions import HBIR_FUNCTIONS

Function = Callable[[List[Tensor], dict], List[Tensor]]


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> List[Tensor]:
    return [x.permute(0, 2, 3, 1).contiguous()]


def _conv2d(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    top, left, bottom, right = attrs['pad']
    x = F.pad(_channels_first(inputs[0]), (left, right, top, bottom))
    bias = inputs[2] if len(inputs) > 2 else None
    return _channels_last(F.conv2d(x, _channels_first(inputs[1]), bias, attrs['stride'], 0,
                                   attrs['dilation'], attrs['groupNum']))


def _max_pool(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    """As torch pools; padding that differs from side to side never wins either."""
    top, left, bottom, right = attrs['pad']
    x, stride, dilation = _channels_first(inputs[0]), attrs['stride'], attrs['dilation']
    if (top, left) == (bottom, right):
        return _channels_last(F.max_pool2d(x, attrs['kernel'], stride, (top, left), dilation,
                                           attrs['ceilMode']))
    ends = []
    for axis, (before, after) in enumerate(((top, bottom), (left, right))):
        size = x.shape[2 + axis] + before
        span = size + after - dilation[axis] * (attrs['kernel'][axis] - 1) - 1
        count = (-(-span // stride[axis]) if attrs['ceilMode'] else span // stride[axis]) + 1
        if attrs['ceilMode'] and (count - 1) * stride[axis] >= size:
            count -= 1
        ends.append(after + (count - 1) * stride[axis] - span)
    x = F.pad(x, (left, ends[1], top, ends[0]), value=-math.inf)
    return _channels_last(F.max_pool2d(x, attrs['kernel'], stride, 0, dilation))


def _grid_sample(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    if attrs['mode'] != 'bilinear' or attrs['padValue'] != 0:
        raise BpuError('hbir.grid_sample: expected mode bilinear and padValue 0, found '
                       f'{attrs["mode"]} and {attrs["padValue"]}')
    padding = {'constant': 'zeros', 'border': 'border'}[attrs['expansionMode']]
    return _channels_last(F.grid_sample(_channels_first(inputs[0]), inputs[1], 'bilinear', padding,
                                        attrs['alignCorner']))


def _pad(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    if attrs['expansionMode'] != 'constant':
        raise BpuError('hbir.pad: expected expansionMode constant, found '
                       f'{attrs["expansionMode"]}')
    sides = [n for pair in zip(attrs['begin'][::-1], attrs['end'][::-1]) for n in pair]
    return [F.pad(inputs[0], sides, value=attrs['padValue'])]


def _topk(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    """Descending; of equal values the lower index first, which torch.topk leaves open."""
    dim = attrs['dim']
    values, order = torch.sort(inputs[0], dim=dim, descending=True, stable=True)
    return [values.narrow(dim, 0, attrs['k']), order.narrow(dim, 0, attrs['k']).to(torch.int32)]


def _slice(inputs: List[Tensor], attrs: dict) -> List[Tensor]:
    bounds = zip(attrs['begin'], attrs['end'], attrs['step'])
    return [inputs[0][tuple(slice(*bound) for bound in bounds)].contiguous()]


def _elementwise(function: Callable[..., Tensor]) -> Function:
    return lambda inputs, attrs: [function(inputs[0], **attrs)]


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    return lambda inputs, attrs: [function(inputs[0], inputs[1])]


def _reduce(function: Callable[..., Tensor]) -> Function:
    return lambda inputs, attrs: [function(inputs[0], attrs['dims'], keepdim=attrs['keepDim'])]


FUNCTIONS: Dict[str, Function] = {
    'hbir.conv2d': _conv2d,
    'hbir.deform_conv2d': deform_conv2d,
    'hbir.linear': lambda inputs, attrs: [F.linear(*inputs)],
    'hbir.matmul': _binary(torch.matmul),
    'hbir.add': _binary(torch.add),
    'hbir.sub': _binary(torch.sub),
    'hbir.mul': _binary(torch.mul),
    'hbir.div': _binary(torch.div),
    'hbir.greater': _binary(torch.gt),
    'hbir.greater_equal': _binary(torch.ge),
    'hbir.max': _binary(torch.maximum),
    'hbir.min': _binary(torch.minimum),
    **{name: _elementwise(row.torch_function()) for name, row in HBIR_FUNCTIONS.items()},
    'hbir.reduce_sum': _reduce(torch.sum),
    'hbir.reduce_mean': _reduce(torch.mean),
    'hbir.reduce_max': _reduce(torch.amax),
    'hbir.reduce_min': _reduce(torch.amin),
    'hbir.max_pool': _max_pool,
    'hbir.grid_sample': _grid_sample,
    **FEATURE_MAPS,
    'hbir.image_convert': image_convert,
    'hbir.image_preprocess': image_preprocess,
    'hbir.topk': _topk,
    'hbir.gather_elements': lambda inputs, attrs: [
        inputs[0].gather(attrs['dim'], inputs[1].to(torch.int64))],
    'hbir.where': lambda inputs, attrs: [torch.where(*inputs)],
    'hbir.reshape': lambda inputs, attrs: [inputs[0].reshape(attrs['shape'])],
    'hbir.transpose': lambda inputs, attrs: [inputs[0].permute(attrs['dims']).contiguous()],
    'hbir.pad': _pad,
    'hbir.slice': _slice,
    'hbir.flip': lambda inputs, attrs: [inputs[0].flip(attrs['dims'])],
    'hbir.roll': lambda inputs, attrs: [inputs[0].roll(attrs['shifts'], attrs['dims'])],
    'hbir.tile': lambda inputs, attrs: [inputs[0].repeat(attrs['multiplies'])],
    'hbir.concat': lambda inputs, attrs: [torch.cat(inputs, attrs['dim'])],
}
"""Operation -> function of its operands and attributes."""


def fake_quantize(op: Operation, x: Tensor) -> Tensor:
    """``x`` on the grid of a ``qnt.const_fake_quant``; same shape, float32."""
    integers, scale = integers_and_scale(op, x)
    return integers.mul_(scale)


def integers_and_scale(op: Operation, x: Tensor) -> Tuple[Tensor, Tensor]:
    """Integers that a fake quantizer rounds ``x`` to, as float32, and its scale, broadcastable."""
    bits, scale, axis = fake_quant_scale(op)
    low, high = fake_quant_range(bits, bool(attrs_of(op).get('narrowRange', False)))
    scale = torch.as_tensor(scale, dtype=torch.float32)
    if axis is not None:
        scale = scale.view(-1, *(1, ) * (x.dim() - axis - 1))
    return torch.div(x, scale).round_().clamp_(low, high), scale


def evaluate(op: Operation, operands: List[Tensor], quantize: bool = True) -> List[Tensor]:
    """Results of one operation.

    Args:
        op (Operation): An ``hbir`` operation or a fake quantizer.
        operands (list[Tensor]): Values of its operands.
        quantize (bool): False makes a fake quantizer the identity. Defaults to True.

    Raises:
        BpuError: No reference for the operation; the message names its site.
    """
    if op.name == 'hbir.constant':
        # A copy: the bytes belong to the attribute and are read-only, which torch cannot tell.
        return [torch.from_numpy(attrs_of(op)['values'].copy())]
    if op.name == 'qnt.const_fake_quant':
        return [fake_quantize(op, operands[0]) if quantize else operands[0]]
    function = FUNCTIONS.get(op.name)
    if function is None:
        raise BpuError(f'{site_of(op)}: no float reference for {op.name}')
    return function(operands, attrs_of(op))


def evaluate_value(value: SSAValue, known: Dict[SSAValue, Any], quantize: bool = True,
                   run: Callable[[Operation, list, bool], list] = evaluate) -> Any:
    """A value from the ones it depends on.

    Args:
        value (SSAValue): What is wanted.
        known (dict[SSAValue, Tensor]): Where the walk back ends. What is computed on the way is
            added to it.
        quantize (bool): See :func:`evaluate`.
        run (Callable): What computes the results of one operation. Defaults to :func:`evaluate`.
    """
    pending = [value]
    while pending:
        current = pending[-1]
        if current in known:
            pending.pop()
            continue
        op = current.owner
        if not isinstance(op, Operation):
            raise BpuError('a value depends on an input that was not given')
        missing = [operand for operand in op.operands if operand not in known]
        if missing:
            pending += missing
            continue
        known.update(zip(op.results, run(op, [known[v] for v in op.operands], quantize)))
    return known[value]


class FloatReference:
    """Runs a fake-quantized module in float32.

    Args:
        module (ModuleOp): ``hbir`` and ``qnt`` operations.
        quantize (bool): False strips the fake quantizers. Defaults to True.
    """

    def __init__(self, module: ModuleOp, quantize: bool = True) -> None:
        self.quantize = quantize
        function = find_function(module)
        self._arguments = dict(zip(public_names(function.arg_attrs), function.body.block.args))
        returned = next(op for op in function.body.block.ops if isinstance(op, ReturnOp))
        self._outputs = dict(zip(public_names(function.res_attrs), returned.operands))
        self._operations = list(operations(module))
        self._dead = last_uses(self._operations, self._outputs.values())

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Tensor]) -> Dict[str, Tensor]:
        """Run one inference.

        Args:
            inputs (dict[str, Tensor]): float32 tensor of each input by name, e.g. the normalised
                image (1, H, W, 3).

        Returns:
            dict[str, Tensor]: Each output by name.

        Raises:
            BpuError: An input is missing, unknown or of another shape.
        """
        if set(inputs) != set(self._arguments):
            raise BpuError(f'expected the inputs {sorted(self._arguments)}, found '
                           f'{sorted(inputs)}')
        values: Dict[SSAValue, Tensor] = {}
        for name, argument in self._arguments.items():
            expected = value_type(argument).shape
            if tuple(inputs[name].shape) != expected:
                raise BpuError(f'input {name!r}: expected shape {expected}, found '
                               f'{tuple(inputs[name].shape)}')
            values[argument] = inputs[name].to(torch.float32)
        for op, dead in zip(self._operations, self._dead):
            results = evaluate(op, [values[v] for v in op.operands], self.quantize)
            values.update(zip(op.results, results))
            for value in dead:
                del values[value]
        return {name: values[value] for name, value in self._outputs.items()}


def last_uses(ops: Sequence[Operation], outputs: Iterable[SSAValue]) -> List[List[SSAValue]]:
    """Per operation, the values that nothing needs after it; ``outputs`` are needed to the end."""
    kept = set(outputs)
    dead = []
    for op in reversed(ops):
        values = dict.fromkeys(v for v in (*op.operands, *op.results) if v not in kept)
        kept.update(values)
        dead.append(list(values))
    return dead[::-1]


def public_names(attributes) -> List[str]:
    """Names of a function's arguments or results, of their attributes."""
    return [entry.data[NAME].data for entry in attributes.data]
