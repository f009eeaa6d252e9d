"""What a search found: settings with what they cost and give, and what was asked for."""
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional

TOLERANCE = 0.002
"""Settings whose mAP differs by no more are equal."""
TEMPLATE, INT8, INT16 = 'template', 'int8 everywhere', 'int16 wherever it can be'


@dataclass(frozen=True)
class Point:
    """A setting and what it gives.

    Attributes:
        name (str): How it was come by.
        setting (dict[str, str]): Name of a tensor -> dtype.
        latency_ms (float): By the cost model.
        mean_ap (float): On the validation images.
    """
    name: str
    setting: Dict[str, str]
    latency_ms: float
    mean_ap: float

    @property
    def wide(self) -> int:
        """How many of the free tensors are int16."""
        return sum(dtype == 'int16' for dtype in self.setting.values())

    def as_row(self) -> Dict[str, Any]:
        """Flat form for tables."""
        return dict(setting=self.name, latency_ms=self.latency_ms, mAP=self.mean_ap,
                    int16=self.wide, int8=len(self.setting) - self.wide)


@dataclass(frozen=True)
class Bound:
    """What a setting has to keep.

    Attributes:
        target_map (float, optional): At least this mAP.
        max_latency_ms (float, optional): At most this latency.
    """
    target_map: Optional[float] = None
    max_latency_ms: Optional[float] = None

    def met_by(self, point: Point) -> bool:
        """Whether a setting keeps it."""
        return (self.target_map is None or point.mean_ap >= self.target_map) \
            and (self.max_latency_ms is None or point.latency_ms <= self.max_latency_ms)

    def better(self, point: Point, other: Point) -> bool:
        """Whether ``point`` is to be preferred."""
        return self._rank(point) > self._rank(other)

    def _rank(self, point: Point) -> tuple:
        if self.met_by(point):  # the cheapest of the good, else the best of the cheap
            good = -point.latency_ms if self.target_map is not None else point.mean_ap
            return 2, good, point.mean_ap, -point.latency_ms
        if self.max_latency_ms is not None and point.latency_ms > self.max_latency_ms:
            return 0, -point.latency_ms, point.mean_ap
        return 1, point.mean_ap, -point.latency_ms


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        chosen (Point): The best one.
        points (list[Point]): All that were measured, the cheapest first; without repetitions.
        bound (Bound): What was asked for.
        march (str): March of the latencies.
        cheapest_ms (float): Latency of int8 everywhere: no setting is below it.
        reasons (dict[str, str]): Tensor whose dtype is not the template's -> why.
        rules (list[dict]): That make the chosen setting.
        seed (int): Of the refinement.
    """
    chosen: Point
    points: List[Point]
    bound: Bound
    march: str
    cheapest_ms: float
    reasons: Dict[str, str]
    rules: List[dict]
    seed: int

    @property
    def template(self) -> Point:
        """The setting of the template and the user's rules."""
        return next(point for point in self.points if point.name == TEMPLATE)

    @property
    def met(self) -> bool:
        """Whether the chosen setting keeps the bound."""
        return self.bound.met_by(self.chosen)

    @property
    def front(self) -> List[Point]:
        """Settings that none is both cheaper and better than."""
        best, front = float('-inf'), []
        for point in sorted(self.points, key=lambda each: (each.latency_ms, -each.mean_ap)):
            if point.mean_ap > best:
                front.append(point)
                best = point.mean_ap
        return front

    def verdict(self) -> str:
        """How the chosen setting compares with the template, in words."""
        lost = self.template.mean_ap - self.chosen.mean_ap
        cheaper = 1 - self.chosen.latency_ms / self.template.latency_ms
        most = 1 - self.cheapest_ms / self.template.latency_ms
        figures = (f'template {self.template.latency_ms:.3f} ms, mAP {self.template.mean_ap:.3f}; '
                   f'chosen {self.chosen.latency_ms:.3f} ms, mAP {self.chosen.mean_ap:.3f}')
        if lost <= TOLERANCE and cheaper > 0:
            found = (f'it beats the template: {100 * cheaper:.1f} % cheaper at equal mAP '
                     f'(within {TOLERANCE})')
        elif lost <= TOLERANCE:
            found = 'it did not beat the template, which is as cheap at equal mAP'
        else:
            found = (f'it did not beat the template at equal mAP: it is {100 * cheaper:.1f} % '
                     f'cheaper and loses {lost:.3f}')
        return (f'{found}. {figures}. No dtypes give more than {100 * most:.1f} %: int8 everywhere, '
                f'whatever its mAP, takes {self.cheapest_ms:.3f} ms; the rest is products in int8, '
                'weights from DDR and the fixed time of an inference')

    def as_dict(self) -> Dict[str, Any]:
        """Plain form for JSON."""
        return dict(chosen=asdict(self.chosen), met=self.met, bound=asdict(self.bound),
                    march=self.march, seed=self.seed, verdict=self.verdict(), rules=self.rules,
                    front=[point.as_row() for point in self.front],
                    points=[point.as_row() for point in self.points])
