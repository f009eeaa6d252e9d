"""What a detector loses when one of its tensors alone is quantized.

Of every tensor the loss is measured on some batches, with all else in float. What rounding changes
to first order is had of all tensors at once (:mod:`mmdet_bpu.analysis.first_order`), so on many
more batches. Both together are a control variate: with d the change that was measured and f the
first-order one,

    change = mean of d + b (mean of f over all batches - mean of f over those of d)
    b      = sum(d f) / sum(f f), held within [0, 1]

Where rounding is fine f explains d and the many batches count; where it is coarse b is small and
the measurement stands. A tensor is measured on two batches, one whose change they do not settle on
six, and on more as long as that is within three standard errors.
"""
from dataclasses import asdict
from fnmatch import fnmatchcase
from math import inf, log10, sqrt
from typing import Any, Dict, Iterable, List, Mapping, MutableMapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from mmdet_bpu.analysis.alone import Alone
from mmdet_bpu.analysis.detector_loss import as_in_training, given_features, loss_and_outputs
from mmdet_bpu.analysis.first_order import Changes, first_order_changes
from mmdet_bpu.analysis.sensitivity_result import (ACTIVATION, DTYPES, WEIGHT, Cost, Sensitivity,
                                                   TensorSensitivity)
from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.quantized_graph import WEIGHT_DTYPE
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.quantization import quantization_of, quantized_graphs
from mmdet_bpu.quantization.scale_choice import ScaleChoice, weight_names
from mmdet_bpu.steps import progress_bar

EXTRACT = 'extract_feat'
FIRST_BATCHES, COARSE_BATCHES = 2, 6
"""On which every tensor is measured, and at least those that these do not settle. The error of few
batches is itself known badly."""
KNOWN_WELL, CLEAR = 1e-5, 3.0
"""Share of the loss below which a standard error moves nothing; errors that a change is apart from 0."""
MOST_FEATURES = 1 << 28
"""Elements of the neck's results that are kept, 1 GiB; of further batches they are computed again."""
MATTERS = 1e-3
"""Share of the loss; where int8 costs less, int16 is not measured but taken to first order."""
Known = MutableMapping[str, Dict[str, Optional[float]]]


class TensorMeasurement:
    """Measures a detector with single tensors quantized on the same batches, again and again.

    Args:
        model (nn.Module): A prepared detector.
        choice (ScaleChoice): Its scales.
        batches (Sequence[dict]): Labelled images.
    """

    def __init__(self, model: nn.Module, choice: ScaleChoice,
                 batches: Sequence[Dict[str, Any]]) -> None:
        self.model, self.choice, self.batches = model, choice, batches
        self.alone = Alone(model)
        self.features: List[Any] = []
        kept = 0
        with as_in_training(model), torch.no_grad():
            for batch in batches:
                with self.alone.quantizing({}):
                    features = model.extract_feat(batch['inputs'])
                kept += sum(feature.numel() for feature in features)
                self.features.append(features if kept <= MOST_FEATURES else None)
            self.versions = [features and _versions(features) for features in self.features]
            self.float = self._run({}, (), range(len(batches)))

    @property
    def loss(self) -> float:
        """Mean loss of a batch in float."""
        return _mean([loss for loss, _ in self.float])

    def changes(self, name: str, dtype: str, numbers: Sequence[int]
                ) -> List[Tuple[float, Optional[float]]]:
        """Change of the loss, and SQNR in dB of the worst output, of the batches of those numbers."""
        weights = set(weight_names(self.model))
        activations = {} if name in weights else {name: (dtype, self.choice.scale(name, dtype))}
        with as_in_training(self.model), torch.no_grad():
            found = self._run(activations, {name} & weights, numbers)
        return [(loss - self.float[number][0], _worst_sqnr(outputs, self.float[number][1]))
                for (loss, outputs), number in zip(found, numbers)]

    def _run(self, activations: Mapping[str, Tuple[str, float]], weights: Iterable[str],
             numbers: Iterable[int]) -> List[Tuple[float, List[Tensor]]]:
        begins_later = EXTRACT not in self.alone.regions(activations, weights)
        found = []
        for number in numbers:
            features, known = self.features[number], None
            # What a part behind the neck has overwritten is of no use.
            if begins_later and features and _versions(features) == self.versions[number]:
                known = features
            with self.alone.quantizing(activations, weights), given_features(self.model, known):
                found.append(loss_and_outputs(self.model, self.batches[number]))
        return found


def measure_sensitivity(model: nn.Module, choice: ScaleChoice, direct: Sequence[Dict[str, Any]],
                        others: Iterable[Dict[str, Any]], other_images: int, labels: str,
                        named: str = '*', known: Optional[Known] = None) -> Sensitivity:
    """Rank all tensors of a detector by what int8 costs them.

    Args:
        model (nn.Module): A prepared detector with its scales.
        choice (ScaleChoice): Gives those of other dtypes.
        direct (Sequence[dict]): Batches on which tensors are measured, every one on the first.
        others (Iterable[dict]): More batches, for the first-order changes alone.
        other_images (int): How many images they hold.
        labels (str): Where the labels are from, for the report.
        named (str): Which tensors, as a glob. Defaults to all.
        known (MutableMapping, optional): Costs that were measured before, and where new ones are
            kept: name and dtype, as in ``'image int8'`` -> fields of :class:`Cost`.

    Raises:
        BpuError: There are none of that name.
    """
    tensors = [tensor for tensor in describe(model) if fnmatchcase(tensor.tensor, named)]
    if not tensors:
        raise BpuError(f'parameter tensors={named!r} matches nothing; tools/check_model.py CONFIG '
                       '--sites lists the sites that tensors are named after')
    scales = {tensor.tensor: {dtype: choice.scale(tensor.tensor, dtype) for dtype in DTYPES}
              for tensor in tensors if tensor.kind == ACTIVATION}
    weights = [tensor.tensor for tensor in tensors if tensor.kind == WEIGHT]
    measurement = TensorMeasurement(model, choice, direct)
    images = sum(len(batch['inputs']) for batch in direct)
    known = {} if known is None else known
    wanted = [(tensor, dtype) for tensor in tensors for dtype in tensor.dtypes]
    first: List[Changes] = []
    if any(_key(*each) not in known for each in wanted):
        first = _first_order(measurement, [*direct], others, images + other_images, scales,
                             weights)
    with progress_bar('one tensor alone', len(wanted), items='tensors') as advance:
        for tensor, dtype in wanted:
            if _key(tensor, dtype) not in known:
                count = min(FIRST_BATCHES, len(direct))
                if dtype == 'int16':  # fine enough for the first order to say most of it
                    matters = tensor.score > MATTERS * measurement.loss
                    count = 1 if matters else 0
                known[_key(tensor, dtype)] = asdict(_measured(
                    measurement, tensor.tensor, dtype, count,
                    [changes[tensor.tensor, dtype] for changes in first]))
            tensor.costs[dtype] = Cost(**known[_key(tensor, dtype)])
            advance(1)
    tensors.sort(key=lambda tensor: -tensor.score)
    return Sensitivity(tensors, measurement.loss, images, images + other_images, labels)


def _measured(measurement: TensorMeasurement, name: str, dtype: str, count: int,
              first_order: Sequence[float]) -> Cost:
    """Cost of a tensor by ``count`` batches, and by as many more as it takes to know it."""
    changes = measurement.changes(name, dtype, range(count))
    cost = cost_of(changes, first_order)
    while len(changes) < len(measurement.batches) and not _is_settled(
            cost, len(changes), measurement.loss):
        changes += measurement.changes(name, dtype, [len(changes)])
        cost = cost_of(changes, first_order)
    return cost


def _is_settled(cost: Cost, batches: int, loss: float) -> bool:
    """Whether more batches would hardly move a tensor in the ranking."""
    error = cost.standard_error
    if error is None or error <= KNOWN_WELL * abs(loss):
        return True
    return batches >= COARSE_BATCHES and abs(cost.loss_change) >= CLEAR * error


def _key(tensor: TensorSensitivity, dtype: str) -> str:
    return f'{tensor.tensor} {dtype}'


def _first_order(measurement: TensorMeasurement, direct: List[Dict[str, Any]],
                 others: Iterable[Dict[str, Any]], images: int,
                 scales: Mapping[str, Mapping[str, float]], weights: List[str]) -> List[Changes]:
    """First-order changes of every batch, those that are measured first."""
    found = []
    with progress_bar('first order', images) as advance, as_in_training(measurement.model):
        for batches in (direct, others):
            for batch in batches:
                found.append(first_order_changes(measurement.model, measurement.alone, batch,
                                                 scales, weights))
                advance(len(batch['inputs']))
    return found


def cost_of(measured: Sequence[Tuple[float, Optional[float]]],
            first_order: Sequence[float]) -> Cost:
    """The cost by the control variate of this module's text.

    Args:
        measured (Sequence[tuple]): Of some batches, or none: change of the loss, SQNR in dB.
        first_order (Sequence[float]): Of the same batches, and then of others.
    """
    if not measured:
        return Cost(_mean(first_order), None, None)
    changes = [change for change, _ in measured]
    known = first_order[:len(changes)]
    squares = sum(f * f for f in known)
    share = sum(d * f for d, f in zip(changes, known)) / squares if squares else 0.0
    share = min(max(share, 0.0), 1.0)
    mean, everywhere = _mean(changes), _mean(first_order)
    rest = [d - share * f for d, f in zip(changes, known)]
    error = None
    if len(rest) > 1:
        error = sqrt(sum((r - _mean(rest))**2 for r in rest) / (len(rest) - 1) / len(rest))
    decibels = [value for _, value in measured if value is not None]
    return Cost(mean + share * (everywhere - _mean(known)), error,
                _mean(decibels) if decibels else None)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def describe(model: nn.Module) -> List[TensorSensitivity]:
    """The tensors of a prepared detector, in graph order, without costs: groups, then weights."""
    rows: Dict[str, TensorSensitivity] = {}
    for network in quantized_graphs(model):
        for row in network.rows:
            rows.setdefault(row['quantizer'], TensorSensitivity(
                row['quantizer'], ACTIVATION, row['op'], row['shape'], row['dtype'], row['rule']))
    for network in quantization_of(model).networks:
        for op in network.graph.ops:
            if KINDS[op.kind].weight is None:
                continue
            shape = network.graph.values[op.inputs[KINDS[op.kind].weight]].shape
            rows.setdefault(network.weight_name(op), TensorSensitivity(
                network.weight_name(op), WEIGHT, op.kind, list(shape), WEIGHT_DTYPE,
                'weights are int8, with a scale per output channel'))
    return list(rows.values())


def _versions(features: Any) -> List[int]:
    return [feature._version for feature in features]


def _worst_sqnr(outputs: Sequence[Tensor], clean: Sequence[Tensor]) -> Optional[float]:
    """Of the output that suffers most, dB; None if none changes."""
    worst = inf
    for found, expected in zip(outputs, clean):
        finite = torch.isfinite(expected) & torch.isfinite(found)
        signal = expected[finite].double().square().sum().item()
        noise = (found - expected)[finite].double().square().sum().item()
        if noise and signal:
            worst = min(worst, 10 * log10(signal / noise))
    return None if worst == inf else worst
