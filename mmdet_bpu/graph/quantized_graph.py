"""The quantized graph: what a detector computes, and how each tensor of it is quantized.

One value, made once when a detector is prepared, and read by everything after: the fake
quantizers, the report, HBIR. It knows nothing of layouts and nothing of how scales are found.
"""
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import numpy as np
from torch import Tensor

from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.graph.scales import constant_scale, number_on_grid, weight_scale
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.program.weight_layout import channels_exchanged

IMAGE = 'image'
"""Public name of the input."""
WEIGHT_DTYPE = 'int8'


class Role(str, Enum):
    """What a value is in integers."""

    OWN = 'own'  # rounded to integers after the op that makes it
    ALIAS = 'alias'  # the integers of another value
    FUSED = 'fused'  # never integers: inside a product's epilogue or a table
    INDEX = 'index'  # integers of no scale


class RuleSource(str, Enum):
    """Who said how a tensor is quantized."""

    TEMPLATE = 'template'
    USER = 'user'


@dataclass(frozen=True)
class TensorConfig:
    """How a tensor is quantized, and the rule that said so.

    Attributes:
        dtype (str): ``int8``, ``int16``, or ``int32`` (an accumulator: never rounded).
        rule (str): The rule in words.
        source (RuleSource): Whose rule it is.
        observer (str | dict, optional): How its scale is found; None: as all others.
        scale (float, optional): A fixed scale.
    """
    dtype: str
    rule: str
    source: RuleSource = RuleSource.TEMPLATE
    observer: Optional[Union[str, dict]] = None
    scale: Optional[float] = None


@dataclass
class Placement:
    """The role of every variable value and the groups of values on one scale.

    Attributes:
        kinds (dict[str, Role]): Value -> its role.
        source (dict[str, str]): Alias -> the value whose integers it has.
        factor (dict[str, float]): Alias -> its scale over the scale of its source.
        root (dict[str, str]): Member of a unary chain -> the integers that the chain reads.
        group (dict[str, str]): Own value -> representative of its group.
        constants (dict[tuple[str, int], str]): (op output, input index) of a constant operand ->
            the own value whose group it joins, or '' if it has a quantizer of its own.
    """
    kinds: Dict[str, Role] = field(default_factory=dict)
    source: Dict[str, str] = field(default_factory=dict)
    factor: Dict[str, float] = field(default_factory=dict)
    root: Dict[str, str] = field(default_factory=dict)
    group: Dict[str, str] = field(default_factory=dict)
    constants: Dict[tuple, str] = field(default_factory=dict)

    def integers(self, value: str) -> str:
        """The own value (or graph input) whose integers ``value`` holds."""
        while self.kinds.get(value) == Role.ALIAS:
            value = self.source[value]
        return value

    def scale_factor(self, value: str) -> float:
        """Scale of ``value`` over the scale of :meth:`integers` of it."""
        factor = 1.0
        while self.kinds.get(value) == Role.ALIAS:
            factor *= self.factor.get(value, 1.0)
            value = self.source[value]
        return factor

    def find(self, value: str) -> str:
        """Representative of the group of an own value."""
        while self.group[value] != value:
            value = self.group[value]
        return value


@dataclass(frozen=True)
class Scales:
    """Quantization of the graph's values as it is now.

    Attributes:
        own (dict[str, tuple[str, float]]): Own value -> (dtype, scale).
        constants (dict[tuple[str, int], tuple[str, float]]): (op output, input index) -> (dtype,
            scale) of a constant operand.
        weights (dict[str, tuple[str, np.ndarray]]): Output of a product with weights -> (dtype,
            scale per output channel).
        fills (dict[str, float]): Output of an op that puts a number among integers -> that number
            on their grid.
    """
    own: Dict[str, Tuple[str, float]]
    constants: Dict[Tuple[str, int], Tuple[str, float]] = field(default_factory=dict)
    weights: Dict[str, Tuple[str, np.ndarray]] = field(default_factory=dict)
    fills: Dict[str, float] = field(default_factory=dict)


@dataclass
class QuantizedGraph:
    """A deployed graph with the role and the config of every value.

    Attributes:
        graph (OpGraph): What is computed; its constants hold the weights.
        placement (Placement): Roles and groups.
        configs (dict[str, TensorConfig]): Own value -> its config.
        rules (list[dict]): The user's rules that the configs follow.
        weight_observers (dict[str, str | dict]): Public name of a weight -> how its reach is chosen,
            where that is not all of it.
        scales (Scales, optional): None before the quantizers' scales are asked for.
        rows (list[dict]): The report, one per own value; scales in it when they are known.
    """
    graph: OpGraph
    placement: Placement
    configs: Dict[str, TensorConfig]
    rules: List[dict] = field(default_factory=list)
    weight_observers: Dict[str, Union[str, dict]] = field(default_factory=dict)
    scales: Optional[Scales] = None
    rows: List[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.producers = self.graph.producers()

    @property
    def input_shape(self) -> Tuple[int, ...]:
        """(N, C, H, W) of the image."""
        return tuple(self.graph.values[self.graph.inputs[0]].shape)

    def name(self, value: str) -> str:
        """Public name of the quantizer of an own value: the first site of its group."""
        return self.site_of(self.placement.find(value))

    def site_of(self, value: str) -> str:
        """Public site name of a value; the input is called ``image``."""
        return IMAGE if value in self.graph.inputs else self.producers[value].site

    def config(self, value: str) -> TensorConfig:
        """Config of the integers that ``value`` holds."""
        return self.configs[self.placement.integers(value)]

    def own_values(self) -> List[str]:
        """Values with integers of their own, in graph order."""
        names = [*self.graph.inputs, *(op.output for op in self.graph.ops)]
        return [n for n in names if self.placement.kinds[n] == Role.OWN]

    def weight_name(self, op: Op) -> str:
        """Public name of the weight of a product: its parameter, or the site if it is none."""
        return self.graph.values[op.inputs[KINDS[op.kind].weight]].origin or op.site

    def constant_dtype(self, op: Op, index: int) -> str:
        """dtype of a constant operand: what the unit asks for, else that of what it meets."""
        fixed = KINDS[op.kind].operand_dtypes.get(index)
        if fixed is not None:
            return fixed
        others = [name for name in self.graph.variable_inputs(op)
                  if self.graph.values[name].dtype.is_floating_point]
        dtype = self.config(others[0]).dtype if others else 'int8'
        return 'int16' if dtype == 'int32' else dtype

    def fills(self, op: Op) -> bool:
        """Whether ``op`` puts a number other than zero among the integers of its input."""
        return bool(op.params.get('fill')) and self.placement.kinds[op.output] == Role.ALIAS

    def with_scales(self, scale_of: Callable[[str], Tuple[float, bool]],
                    reach_of: Callable[[str], Optional[Tensor]] = lambda site: None
                    ) -> 'QuantizedGraph':
        """The same graph with scales.

        Args:
            scale_of (Callable): Public name of a quantizer -> its scale, and whether it counts.
            reach_of (Callable): Public name of a weight -> reach of each channel; see
                :func:`~mmdet_bpu.graph.scales.weight_scale`.
        """
        own: Dict[str, Any] = {}
        rows = []
        for value in self.own_values():
            name, config = self.name(value), self.configs[value]
            scale, calibrated = scale_of(name)
            own[value] = (config.dtype, scale)
            op = self.producers.get(value)
            rows.append(dict(
                site=self.site_of(value), op=op.params.get('fn', op.kind) if op else 'input',
                shape=list(self.graph.values[value].shape), dtype=config.dtype, rule=config.rule,
                quantizer=name, scale=scale, calibrated=calibrated))
        constants = {}
        for (output, index), joined in self.placement.constants.items():
            op = self.producers[output]
            dtype = self.constant_dtype(op, index)
            constants[output, index] = own[joined] if joined else (
                dtype, constant_scale(self.graph.values[op.inputs[index]].data, dtype).item())
        weights = {}
        for op in self.graph.ops:
            if KINDS[op.kind].weight is not None:
                data = self.graph.values[op.inputs[KINDS[op.kind].weight]].data
                if KINDS[op.kind].transposed:
                    data = channels_exchanged(data, op.params['groups'])
                scale = weight_scale(data, WEIGHT_DTYPE, reach_of(self.weight_name(op)))
                weights[op.output] = WEIGHT_DTYPE, scale.cpu().numpy()
        fills = {}
        for op in filter(self.fills, self.graph.ops):
            dtype, scale = own[self.placement.integers(op.output)]
            scale *= self.placement.scale_factor(op.output)
            fills[op.output] = number_on_grid(op.params['fill'], scale, dtype)
        return replace(self, scales=Scales(own, constants, weights, fills), rows=rows)
