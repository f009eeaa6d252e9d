"""The default dtypes of a graph's tensors: what they get where no rule of the user says more."""
from typing import Dict, List, Optional, Set

from mmdet_bpu.graph.decompositions import DIVISIONS, LONG_REDUCTIONS, NORMALISING
from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.graph.quantized_graph import Placement, Role, TensorConfig
from mmdet_bpu.program.deformable_samples import OFFSET_SCALE
from mmdet_bpu.program.kinds import KINDS, Group, of_group, with_weights

PRODUCTS = of_group(Group.PRODUCT)
SOFTMAX_WEIGHTS = 'softmax weights of a matrix product'
PREDICTION_FEATURES = 'input of a prediction'


class Template:
    """The default dtypes, read off the graph.

    int8, but int16 (a) on every path from a sampling grid, from a box output, from a sine or from
    top-k scores, from the offsets of a deformable convolution back to the first matrix product, its
    output included, a deformable convolution that only samples being none; (b) inside softmax and
    norms and at their inputs (of a batch norm: behind a product), and for softmax weights that enter
    a matrix product; (c) for what divides, its reciprocal, and the squares that it is a sum of;
    (d) between the steps of a long reduction; (e) for the features that a 1 x 1 convolution makes an
    output of: each score is a sum of few of them; int32 for an output that a product makes directly (the
    scores). A matrix product takes one int16 side only. What a sampling or a resize reads is int8
    whatever path it lies on. Offsets have a scale of :data:`OFFSET_SCALE` px, so that the integers'
    positions are those of training.
    """

    def __init__(self, graph: OpGraph, placement: Placement) -> None:
        self.graph, self.placement = graph, placement
        self.producers = graph.producers()
        self.reasons: Dict[str, str] = {}
        self.offset_scales: Dict[str, float] = {}
        self.users = graph.users()
        self.narrow = int8_groups(graph, placement)
        for op in graph.ops:
            if op.kind == 'grid_sample':
                self._walk(op.inputs[1], 'path of a sampling grid')
            elif op.kind == 'deform_conv2d':
                self._fix_offsets(op)
            elif op.kind == 'unary' and op.params['fn'] in ('sin', 'cos'):
                self._walk(op.inputs[0], 'path of a positional encoding')
            elif op.kind == 'topk':
                self._walk(op.inputs[0], 'scores of a top-k')
            if op.opened and op.opened[-1] in NORMALISING \
                    and self.placement.kinds[op.output] != Role.ALIAS:
                self._inside(op)
            elif op.opened and op.opened[-1] in DIVISIONS and op.kind == 'unary':
                self._divisor(op)
            elif op.opened and op.opened[-1] in LONG_REDUCTIONS and self._is_read_inside(op):
                self._mark(op.output, 'first step of a long reduction')
        predictions: List[Op] = []
        for name, public in zip(graph.outputs, graph.output_names):
            predictions += [self.producers[name]] if self._is_product(name) else self._walk(
                name, f'path of output {public}')
        for op in predictions:
            self._predicts(op)
        self.accumulators = {
            n for n in graph.outputs if self._is_product(n) and not self.users[n]
        }
        self.narrowed = self._narrowed()

    def dtype(self, value: str) -> TensorConfig:
        """Default dtype of an own value and why."""
        if value in self.accumulators:
            return TensorConfig('int32', 'template: a product feeds an output directly')
        reader = self.narrow.get(self.placement.find(value))
        reason = self.reasons.get(value)
        if reader is not None:
            kept = f', which the {reason} does not change' if reason else ''
            return TensorConfig('int8', f'template: {reader.site} reads int8 only{kept}')
        if self.placement.find(value) in self.narrowed:
            return TensorConfig('int8', 'template: a matrix product takes one int16 side only')
        if value in self.offset_scales:
            return TensorConfig('int16', 'template: offsets of a deformable convolution',
                                scale=self.offset_scales[value])
        if reason is not None:
            return TensorConfig('int16', f'template: {reason}')
        return TensorConfig('int8', 'template: default')

    def _is_product(self, value: str) -> bool:
        op = self.producers.get(value)
        return op is not None and op.kind in with_weights() and not self._only_samples(op)

    def _only_samples(self, op: Op) -> bool:
        """Whether a deformable convolution multiplies by constant ones, channel by channel."""
        if op.kind != 'deform_conv2d' or len(op.inputs) > 4:
            return False
        weight = self.graph.values[op.inputs[1]]
        return not weight.learned and weight.shape[1:] == (1, 1, 1) \
            and weight.shape[0] == op.params['groups'] and bool((weight.data == 1).all())

    def _fix_offsets(self, op: Op) -> None:
        offset = op.inputs[3]
        self._walk(offset, 'path of the offsets of a deformable convolution')
        if not self.graph.values[offset].is_constant:
            scale = OFFSET_SCALE / self.placement.scale_factor(offset)
            self.offset_scales.setdefault(self.placement.integers(offset), scale)

    def _mark(self, value: str, reason: str) -> bool:
        """Note the integers behind ``value``; False if they were noted before."""
        value = self.placement.integers(value)
        if self.graph.values[value].is_constant or value in self.reasons:
            return False
        self.reasons[value] = reason
        return True

    def _walk(self, value: str, reason: str, seen: Optional[set] = None) -> List[Op]:
        """Everything from ``value`` back to the first matrix products, which are returned."""
        seen = set() if seen is None else seen
        if value in seen or self.graph.values[value].is_constant:
            return []
        seen.add(value)
        op = self.producers.get(value)
        if op is None or self.placement.kinds[value] == Role.INDEX:
            return []
        if KINDS[op.kind].int8_only:
            return []  # samples are int8, as what they are taken from
        if self.placement.kinds[value] == Role.OWN:
            self._mark(value, reason)
        if op.kind in PRODUCTS and not self._only_samples(op):
            return [op]
        products: List[Op] = []
        inputs = op.inputs[:1] if op.kind in ('gather', 'deform_conv2d') else op.inputs
        for name in inputs:
            # A residual add that took a product in: the product is the first one.
            if self.placement.kinds.get(name) != Role.FUSED or name in self.placement.root:
                products += self._walk(name, reason, seen)
        return products

    def _predicts(self, op: Op) -> None:
        """The features that a product makes an output of, if it is a 1 x 1 convolution."""
        features = self.placement.integers(op.inputs[0])
        if op.kind == 'conv2d' and op.params['groups'] == 1 and features in self.producers \
                and set(self.graph.values[op.inputs[1]].shape[2:]) == {1}:
            self._mark(features, PREDICTION_FEATURES)

    def _inside(self, op: Op) -> None:
        """Values inside a written-out softmax or norm, and what it reads."""
        what = op.opened[-1]
        for name in self.graph.variable_inputs(op):
            # What a batch norm reads has channels of very different ranges behind a product only.
            if what != 'batch_norm' or self._is_product(self.placement.integers(name)):
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
        if self.placement.kinds[op.output] == Role.OWN:
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
                if value in self.placement.group} - set(self.narrow)
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
            alias = self.placement.kinds[op.output] == Role.ALIAS
            readers += self._readers(op.output) if alias else [op]
        return readers


def int8_groups(graph: OpGraph, placement: Placement) -> Dict[str, Op]:
    """Representatives of the groups that are read as int8 and no wider -> the first reader."""
    readers: Dict[str, Op] = {}
    for op in graph.ops:
        for index in KINDS[op.kind].int8_only:
            if not graph.values[op.inputs[index]].is_constant:
                readers.setdefault(placement.find(placement.integers(op.inputs[index])), op)
    return readers
