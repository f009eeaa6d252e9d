"""Which dtype, observer and scale a tensor gets: user rules first, then the template.

A rule is a dict: ``site`` (glob on the public site name), ``module`` (class name of the enclosing
module) and ``op`` (kind or torch function name) say what it matches, all given ones must;
``dtype``, ``observer`` and ``scale`` say what it sets. The first match wins.
"""
import fnmatch
import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Set, Union

from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.decompositions import DIVISIONS, LONG_REDUCTIONS, NORMALISING
from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.program.dtypes import USER_DTYPES
from mmdet_bpu.program.kinds import Group, of_group, with_weights
from mmdet_bpu.quantization.observers import OBSERVERS
from mmdet_bpu.quantization.placement import Placement

MATCH_FIELDS = ('site', 'module', 'op')
SET_FIELDS = ('dtype', 'observer', 'scale')
PRODUCTS = of_group(Group.PRODUCT)
SAMPLED = of_group(Group.SAMPLED)
SOFTMAX_WEIGHTS = 'softmax weights of a matrix product'


@dataclass
class TensorConfig:
    """What a tensor gets, and the rule that said so."""
    dtype: str
    rule: str
    observer: Optional[Union[str, dict]] = None
    scale: Optional[float] = None


def check_rules(rules: Sequence[dict]) -> None:
    """Raise :class:`BpuError` for a malformed rule, naming its index and field."""
    for index, rule in enumerate(rules):
        where = f'bpu.qconfig[{index}]'
        if not isinstance(rule, dict):
            raise BpuError(f'{where}: expected a dict, found {type(rule).__name__}')
        unknown = set(rule) - set(MATCH_FIELDS) - set(SET_FIELDS)
        if unknown:
            raise BpuError(f'{where}: unknown field {sorted(unknown)[0]!r}; known are '
                           f'{", ".join(MATCH_FIELDS + SET_FIELDS)}')
        if not set(rule) & set(MATCH_FIELDS):
            raise BpuError(f'{where}: expected one of {", ".join(MATCH_FIELDS)} to match by')
        if not set(rule) & set(SET_FIELDS):
            raise BpuError(f'{where}: sets nothing; expected one of {", ".join(SET_FIELDS)}')
        if rule.get('dtype', 'int8') not in USER_DTYPES:
            raise BpuError(f'{where}.dtype: expected one of {", ".join(USER_DTYPES)}, found '
                           f'{rule["dtype"]!r}')
        for name in set(rule) & set(MATCH_FIELDS):
            if not isinstance(rule[name], str):
                raise BpuError(f'{where}.{name}: expected a str, found {rule[name]!r}')
        observer = rule.get('observer')
        kind = observer.get('type') if isinstance(observer, dict) else observer
        if observer is not None and (not isinstance(kind, str) or OBSERVERS.get(kind) is None):
            raise BpuError(f'{where}.observer: expected one of {", ".join(OBSERVERS.module_dict)}, '
                           f'or a dict with it as type, found {observer!r}')
        scale = rule.get('scale')
        number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        if scale is not None and not (number and 0 < scale < math.inf):
            raise BpuError(f'{where}.scale: expected a positive number, found {scale!r}')


class Template:
    """The default dtypes, read off the graph.

    int8, but int16 (a) on every path from a sampling grid, from a box output, from a sine or from
    top-k scores back to the first matrix product, its output included; (b) inside softmax and
    norms and at their inputs, and for softmax weights that enter a matrix product; (c) for what
    divides, its reciprocal, and the squares that it is a sum of; (d) between the steps of a long
    reduction; int32 for an output that a product makes directly (the scores).
    """

    def __init__(self, graph: OpGraph, placement: Placement) -> None:
        self.graph, self.placement = graph, placement
        self.producers = graph.producers()
        self.reasons: Dict[str, str] = {}
        self.users = graph.users()
        for op in graph.ops:
            if op.kind == 'grid_sample':
                self._walk(op.inputs[1], 'path of a sampling grid')
            elif op.kind == 'unary' and op.params['fn'] in ('sin', 'cos'):
                self._walk(op.inputs[0], 'path of a positional encoding')
            elif op.kind == 'topk':
                self._walk(op.inputs[0], 'scores of a top-k')
            if op.opened and op.opened[-1] in NORMALISING \
                    and self.placement.kinds[op.output] != 'alias':
                self._inside(op)
            elif op.opened and op.opened[-1] in DIVISIONS and op.kind == 'unary':
                self._divisor(op)
            elif op.opened and op.opened[-1] in LONG_REDUCTIONS and self._is_read_inside(op):
                self._mark(op.output, 'first step of a long reduction')
        for name, public in zip(graph.outputs, graph.output_names):
            if not self._is_product(name):
                self._walk(name, f'path of output {public}')
        self.accumulators = {
            n for n in graph.outputs if self._is_product(n) and not self.users[n]
        }
        self.narrowed = self._narrowed()

    def dtype(self, value: str) -> TensorConfig:
        """Default dtype of an own value and why."""
        if value in self.accumulators:
            return TensorConfig('int32', 'template: a product feeds an output directly')
        if self.placement.find(value) in self.narrowed:
            return TensorConfig('int8', 'template: a matrix product takes one int16 side only')
        if value in self.reasons:
            return TensorConfig('int16', f'template: {self.reasons[value]}')
        return TensorConfig('int8', 'template: default')

    def _is_product(self, value: str) -> bool:
        op = self.producers.get(value)
        return op is not None and op.kind in with_weights()

    def _mark(self, value: str, reason: str) -> bool:
        """Note the integers behind ``value``; False if they were noted before."""
        value = self.placement.integers(value)
        if self.graph.values[value].is_constant or value in self.reasons:
            return False
        self.reasons[value] = reason
        return True

    def _walk(self, value: str, reason: str, seen: Optional[set] = None) -> None:
        """Everything from ``value`` back to the first matrix product."""
        seen = set() if seen is None else seen
        if value in seen or self.graph.values[value].is_constant:
            return
        seen.add(value)
        op = self.producers.get(value)
        if op is None or self.placement.kinds[value] == 'index':
            return
        if op.kind in SAMPLED:
            return  # samples are int8, as what they are taken from
        if self.placement.kinds[value] == 'own':
            self._mark(value, reason)
        if op.kind in PRODUCTS:
            return
        inputs = op.inputs[:1] if op.kind == 'gather' else op.inputs
        for name in inputs:
            # A residual add that took a product in: the product is the first one.
            if self.placement.kinds.get(name) != 'fused' or name in self.placement.root:
                self._walk(name, reason, seen)

    def _inside(self, op: Op) -> None:
        """Values inside a written-out softmax or norm, and what it reads."""
        what = op.opened[-1]
        for name in self.graph.variable_inputs(op):
            self._mark(name, f'inside {what}')
        if self._is_read_inside(op):
            self._mark(op.output, f'inside {what}')
        elif 'softmax' in what and any(r.kind == 'matmul' for r in self._readers(op.output)):
            self._mark(op.output, SOFTMAX_WEIGHTS)

    def _is_read_inside(self, op: Op) -> bool:
        """Whether the call that was written out reads the value again."""
        return any(reader.opened == op.opened and reader.path == op.path
                   for reader in self._readers(op.output))

    def _divisor(self, op: Op) -> None:
        """The reciprocal of a division and the integers that it is a function of."""
        if self.placement.kinds[op.output] == 'own':
            self._mark(op.output, 'reciprocal of a divisor')
        root = self.placement.integers(self.placement.root.get(op.output, op.inputs[0]))
        self._mark(root, 'divisor')
        total = self.producers.get(root)
        if total is None or total.kind not in of_group(Group.REDUCE):
            return
        terms = self.producers.get(total.inputs[0])
        if terms is not None and terms.kind in ('mul', 'unary'):
            self._mark(terms.output, 'terms of a divisor')

    def _narrowed(self) -> Set[str]:
        """Groups that stay int8 since a matrix product with another int16 tensor reads them.

        Softmax weights give way first, then the right-hand side.
        """
        narrowed: Set[str] = set()
        wide = {self.placement.find(value) for value in self.reasons
                if value in self.placement.group}
        for op in self.graph.ops:
            if op.kind != 'matmul':
                continue
            sides = [self.placement.find(self.placement.integers(name))
                     for name in self.graph.variable_inputs(op)]
            if len(sides) == 2 and all(side in wide - narrowed for side in sides):
                softmax = [side for side in sides if self.reasons.get(side) == SOFTMAX_WEIGHTS]
                narrowed.add((softmax or sides[::-1])[0])
        return narrowed

    def _readers(self, value: str) -> List[Op]:
        """Ops that read the integers of ``value``, through data movement."""
        readers = []
        for op in self.users[value]:
            alias = self.placement.kinds[op.output] == 'alias'
            readers += self._readers(op.output) if alias else [op]
        return readers


def _matches(rule: dict, op: Op, model: nn.Module) -> bool:
    if 'site' in rule and not fnmatch.fnmatchcase(op.site, rule['site']):
        return False
    if 'module' in rule and type(model.get_submodule(op.path)).__name__ != rule['module']:
        return False
    function = op.site.rsplit('/', 1)[-1].rsplit('.', 1)[0].split('.')[-1]
    return 'op' not in rule or rule['op'] in (op.kind, function, op.params.get('fn'))


def assign(graph: OpGraph, placement: Placement, rules: Sequence[dict],
           model: nn.Module) -> Dict[str, TensorConfig]:
    """Config of every own value; members of a group get one, of the widest dtype.

    Raises:
        BpuError: A malformed rule, a rule that matches no site, or int32 where integers are read.
    """
    check_rules(rules)
    template = Template(graph, placement)
    producers = graph.producers()
    used = [False] * len(rules)
    configs: Dict[str, TensorConfig] = {}
    for op in graph.ops:
        hits = [i for i, rule in enumerate(rules) if _matches(rule, op, model)]
        for i in hits:
            used[i] = True
    for value in placement.group:
        config = template.dtype(value)
        op = producers.get(value) or Op('input', [], {}, value, 'image')
        for index, rule in enumerate(rules):
            if value in graph.inputs:
                hit = 'site' in rule and fnmatch.fnmatchcase('image', rule['site'])
                used[index] |= hit
            else:
                hit = _matches(rule, op, model)
            if hit:
                config = _ruled(config, rule, index)
                break
        configs[value] = config
    for index, hit in enumerate(used):
        if not hit:
            raise BpuError(f'bpu.qconfig[{index}] matches nothing: {rules[index]!r}; '
                           'tools/check_model.py CONFIG --sites lists the sites')
    configs = _grouped(graph, placement, configs)
    _check_accumulators(graph, placement, configs)
    return configs


def _check_accumulators(graph: OpGraph, placement: Placement,
                        configs: Dict[str, TensorConfig]) -> None:
    """Refuse int32 for anything but a convolution or linear layer that only the outputs read."""
    producers = graph.producers()
    read = {placement.integers(name) for op in graph.ops for name in graph.variable_inputs(op)}
    for value, config in configs.items():
        if config.dtype != 'int32':
            continue
        op = producers.get(value)
        site = op.site if op else 'image'
        if op is None or op.kind not in with_weights() or value in read:
            raise BpuError(f'{config.rule} gives {site} int32: only a convolution or linear layer '
                           'that makes an output directly may stay int32; use int16')


def _ruled(config: TensorConfig, rule: Dict[str, Any], index: int) -> TensorConfig:
    return TensorConfig(rule.get('dtype', config.dtype), f'qconfig[{index}]', rule.get('observer'),
                        rule.get('scale'))


def _grouped(graph: OpGraph, placement: Placement,
             configs: Dict[str, TensorConfig]) -> Dict[str, TensorConfig]:
    """One config per group: the widest dtype; a user's rule goes before the template."""
    order = {name: i for i, name in enumerate(USER_DTYPES)}
    best: Dict[str, TensorConfig] = {}
    for value, config in configs.items():
        head = placement.find(value)
        rank = (config.rule.startswith('qconfig'), order[config.dtype])
        if head not in best or rank > (best[head].rule.startswith('qconfig'),
                                       order[best[head].dtype]):
            best[head] = config
    return {value: best[placement.find(value)] for value in configs}
