"""What a sensitivity analysis found: tensors and what they cost in each dtype."""
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional, Sequence

ACTIVATION, WEIGHT = 'activation', 'weight'
DTYPES = ('int8', 'int16')


@dataclass(frozen=True)
class Cost:
    """What one tensor in one dtype costs, alone.

    Attributes:
        loss_change (float): Of the mean loss of a batch.
        standard_error (float, optional): Of ``loss_change`` by the batches that were measured; None
            for a single one.
        sqnr_db (float, optional): Signal to quantization noise of the deployed output that suffers
            most, dB; None where nothing changes.
    """
    loss_change: float
    standard_error: Optional[float]
    sqnr_db: Optional[float]


@dataclass(frozen=True)
class TensorSensitivity:
    """A tensor and what it costs in each dtype.

    Attributes:
        tensor (str): Public name of its quantizer, or of the weight.
        kind (str): ``'activation'`` or ``'weight'``.
        op (str): What makes it, or reads the weight.
        shape (list[int]): Of the first of its group.
        dtype (str): As it is configured.
        rule (str): What chose that.
        costs (dict[str, Cost]): dtype -> cost; of a weight int8 only.
    """
    tensor: str
    kind: str
    op: str
    shape: List[int]
    dtype: str
    rule: str
    costs: Dict[str, Cost] = field(default_factory=dict)

    @property
    def dtypes(self) -> Sequence[str]:
        """Those that it can have."""
        return DTYPES if self.kind == ACTIVATION else DTYPES[:1]

    @property
    def score(self) -> float:
        """What it is ranked by: change of the loss in int8."""
        return self.costs['int8'].loss_change

    @property
    def as_configured(self) -> float:
        """Change of the loss in the dtype that it has; an accumulator is never rounded."""
        return self.costs[self.dtype].loss_change if self.dtype in self.costs else 0.0

    @property
    def given_back(self) -> Optional[float]:
        """Loss that int16 in the place of int8 gives back; None of a weight."""
        if 'int16' not in self.costs:
            return None
        return self.costs['int8'].loss_change - self.costs['int16'].loss_change

    def as_row(self, rank: int) -> Dict[str, Any]:
        """Flat form for tables."""
        costs = {f'{dtype} {name}': value for dtype in DTYPES
                 for name, value in asdict(self.costs.get(dtype, Cost(None, None, None))).items()}
        return dict(rank=rank, tensor=self.tensor, kind=self.kind, op=self.op, shape=self.shape,
                    dtype=self.dtype, **{'as configured': self.as_configured,
                                         'given back by int16': self.given_back},
                    **costs, rule=self.rule)


@dataclass(frozen=True)
class Sensitivity:
    """All tensors of a detector, those that int8 costs most first.

    Attributes:
        tensors (list[TensorSensitivity]): Ranked.
        loss (float): Mean loss of a batch in float.
        images (int): Images on which every tensor was measured.
        first_order_images (int): Images of the first-order changes.
        labels (str): What the loss was computed from.
    """
    tensors: List[TensorSensitivity]
    loss: float
    images: int
    first_order_images: int
    labels: str

    def rows(self) -> List[Dict[str, Any]]:
        """Flat form, ranked from 1."""
        return [tensor.as_row(rank) for rank, tensor in enumerate(self.tensors, 1)]

    def as_dict(self) -> Dict[str, Any]:
        """Plain form for JSON."""
        return dict(loss=self.loss, images=self.images, first_order_images=self.first_order_images,
                    labels=self.labels,
                    tensors=[dict(asdict(tensor), score=tensor.score,
                                  as_configured=tensor.as_configured, given_back=tensor.given_back)
                             for tensor in self.tensors])
