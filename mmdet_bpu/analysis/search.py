"""Search the dtypes of a detector's tensors: the best within a latency, or the cheapest at an mAP.

    order    tensors by the loss that int16 gives back over the cycles that it takes, the best first
    sweep k  the first k of them in int16, as far as they can be together, all others in int8
    bisect   the k that the bound asks for, by the cost model and by the mAP of the setting itself
    refine   a seeded walk from the best one: of neighbours, in which some tensors have the other
             dtype, the one is tried that would be best if losses added up; what is better stays

What a setting costs is the cost model's estimate of its integer program; its mAP is measured on the
validation images. Sensitivities choose what is tried, they decide nothing.
"""
import random
from statistics import median
from typing import Callable, Dict, List, MutableMapping, Optional

from mmdet_bpu.analysis.measurement_cache import digest
from mmdet_bpu.analysis.search_result import (INT8, INT16, TEMPLATE, TOLERANCE, Bound, Point,
                                              SearchResult)
from mmdet_bpu.analysis.search_space import SearchSpace, Setting
from mmdet_bpu.analysis.sensitivity_result import Sensitivity
from mmdet_bpu.compiler.march import NOMINAL_CLOCK_HZ, get_march
from mmdet_bpu.steps import progress_bar

QUARTERS = 4
"""Parts of the sweep whose ends are measured whatever the bound, for the picture."""
NEIGHBOURS, PATIENCE = 256, 6
"""How many neighbours are thought of at each step, and steps without a gain after which it ends."""


class Search:
    """A search over the settings of a detector.

    Args:
        space (SearchSpace): The settings.
        sensitivity (Sensitivity): Of its tensors.
        measure_map (Callable): Rules -> mAP of the detector by them.
        march (str): March of the latencies.
        evaluations (int): Most settings whose mAP is measured.
        seed (int): Of the refinement.
        known (MutableMapping): What was measured before, and where all is kept.
    """

    def __init__(self, space: SearchSpace, sensitivity: Sensitivity,
                 measure_map: Callable[[List[dict]], float], march: str, evaluations: int,
                 seed: int, known: MutableMapping) -> None:
        self.space, self.measure_map, self.march = space, measure_map, march
        self.evaluations, self.seed, self.known = evaluations, seed, known
        self.costs = {tensor.tensor: tensor for tensor in sensitivity.tensors}
        self.setting_costs = space.costs(get_march(march))
        self.prices = self.setting_costs.prices(space.all_of('int8'))
        self.points: Dict[str, Point] = {}
        self.order = sorted(space.template, key=lambda name: (-self.worth(name), name))

    def worth(self, name: str) -> float:
        """Loss that int16 gives back, by cycle."""
        return (self.costs[name].given_back or 0.0) / max(self.prices[name], 1.0)

    def run(self, bound: Bound) -> SearchResult:
        """The best setting by a bound; without one, the cheapest at the template's mAP."""
        with progress_bar('settings', self.evaluations, items='settings') as self._advance:
            template = self.point(self.space.template, TEMPLATE)
            cheapest = self.point(self.space.all_of('int8'), INT8)
            self.point(self.space.all_of('int16'), INT16)
            if bound == Bound():
                bound = Bound(target_map=template.mean_ap - TOLERANCE)
            for quarter in range(1, QUARTERS):
                self.sweep_point(len(self.order) * quarter // QUARTERS)
            self._bisect(bound)
            self._refine(bound)
        chosen = self._best(bound)
        points = sorted(self.points.values(), key=lambda point: (point.latency_ms, -point.mean_ap))
        return SearchResult(chosen, points, bound, self.march, cheapest.latency_ms,
                            self._reasons(chosen), self.space.rules(chosen.setting), self.seed)

    def _best(self, bound: Bound) -> Point:
        best, *others = self.points.values()
        for point in others:
            best = point if bound.better(point, best) else best
        return best

    @property
    def spent(self) -> bool:
        """Whether all evaluations are used up."""
        return len(self.points) >= self.evaluations

    def swept(self, count: int) -> Dict[str, str]:
        """Setting of the sweep at ``count``."""
        return self.space.widened(self.space.all_of('int8'), self.order[:count])

    def sweep_point(self, count: int) -> Optional[Point]:
        """The sweep at ``count``, measured; None if there is nothing to spend."""
        return self.try_point(self.swept(count), f'the {count} worthiest in int16')

    def latency_ms(self, setting: Setting) -> float:
        """By the cost model."""
        name = f'latency {digest(self.space.rules(setting))}'
        if name not in self.known:
            self.known[name] = self.space.estimate(setting, self.march).latency_ms
        return self.known[name]

    def point(self, setting: Setting, name: str) -> Point:
        """A setting, measured."""
        rules = self.space.rules(setting)
        key = digest(rules)
        if key not in self.points:
            if f'mAP {key}' not in self.known:
                self.known[f'mAP {key}'] = self.measure_map(rules)
            self.points[key] = Point(name, dict(setting), self.latency_ms(setting),
                                     self.known[f'mAP {key}'])
            self._advance(1)
        return self.points[key]

    def try_point(self, setting: Setting, name: str) -> Optional[Point]:
        """The same if it is known or there is an evaluation left."""
        if digest(self.space.rules(setting)) not in self.points and self.spent:
            return None
        return self.point(setting, name)

    def _bisect(self, bound: Bound) -> None:
        """The shortest part of the sweep that is good enough; the longest that is cheap enough."""
        if bound.target_map is None:
            fits, low, high = self._is_cheap(bound), 0, len(self.order) + 1
            while high - low > 1:  # low fits
                middle = (low + high) // 2
                low, high = (middle, high) if fits(middle) else (low, middle)
            self.sweep_point(low)
            return
        low, high = -1, len(self.order)
        while high - low > 1:  # high is good enough, if any is
            middle = (low + high) // 2
            point = self.sweep_point(middle)
            if point is None:
                return
            low, high = (low, middle) if point.mean_ap >= bound.target_map else (middle, high)
        self.sweep_point(high)

    def _is_cheap(self, bound: Bound) -> Callable[[int], bool]:
        return lambda count: self.latency_ms(self.swept(count)) <= bound.max_latency_ms

    def _refine(self, bound: Bound) -> None:
        """Walk on from the best to neighbours that promise more, until some in a row break it."""
        chance, failed = random.Random(self.seed), 0
        while failed < PATIENCE and not self.spent:
            best = self._best(bound)
            setting = self._promising(best, bound, chance)
            if setting is None:
                return
            point = self.try_point(setting, f'refined {len(self.points)}')
            failed = 0 if point is not None and bound.better(point, best) else failed + 1

    def _promising(self, best: Point, bound: Bound, chance: random.Random) -> Optional[Setting]:
        """Of some neighbours the best one if losses add up; None if none promises a gain."""
        drop = self._drop(best)
        at, cost = self._loss(best.setting), self._price(best.setting)
        promising, wanted = None, None
        for _ in range(NEIGHBOURS):
            setting = self._neighbour(best.setting, chance)
            if digest(self.space.rules(setting)) in self.points:
                continue
            cheaper = cost - self._price(setting)
            guess = Point('', setting, best.latency_ms - cheaper / NOMINAL_CLOCK_HZ * 1e3,
                          best.mean_ap - drop * (self._loss(setting) - at))
            if bound.better(guess, best) and (wanted is None or bound.better(guess, wanted)):
                promising, wanted = setting, guess
        return promising

    def _neighbour(self, setting: Setting, chance: random.Random) -> Dict[str, str]:
        """A setting in which one tensor or a few have the other dtype."""
        names = list(setting)
        share = 2.0**chance.randrange(6) / len(names)
        changed = [name for name in names if chance.random() < share] or [chance.choice(names)]
        found = {**setting, **{name: 'int8' for name in changed}}
        return self.space.widened(found, [name for name in changed if setting[name] == 'int8'])

    def _loss(self, setting: Setting) -> float:
        """What its tensors cost alone, added up."""
        return sum(self.costs[name].costs[dtype].loss_change for name, dtype in setting.items())

    def _price(self, setting: Setting) -> float:
        """About how many cycles it takes."""
        return self.setting_costs.cycles(setting)

    def _drop(self, best: Point) -> float:
        """mAP that a unit of loss costs, by the settings that were measured."""
        at = self._loss(best.setting)
        slopes = [(best.mean_ap - point.mean_ap) / (self._loss(point.setting) - at)
                  for point in self.points.values()
                  if self._loss(point.setting) > at and point.mean_ap < best.mean_ap]
        return median(slopes) if slopes else 1.0

    def _reasons(self, chosen: Point) -> Dict[str, str]:
        """Why tensors have another dtype than the template gives them."""
        reasons = {}
        for name, dtype in chosen.setting.items():
            if dtype == self.space.template[name]:
                continue
            tensor, cycles = self.costs[name], self.prices[name]
            change = tensor.costs['int8'].loss_change
            if dtype == 'int8':
                reasons[name] = (f'int8 alone costs {change:+.5f} of loss, and saves about '
                                 f'{cycles:.0f} cycles ({self.space.configs[name].rule})')
            else:
                reasons[name] = (f'int8 alone costs {change:+.5f} of loss, of which int16 gives '
                                 f'{tensor.given_back:.5f} back for about {cycles:.0f} cycles')
        return reasons
