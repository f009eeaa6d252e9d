"""The sites inside one written-out call, and what their quantizers do now."""
from collections import Counter
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np
from torch import Tensor

from mmdet_bpu.graph.capture import CapturedGraph
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.quantization.fake_quant import FakeQuantizer, QuantState, fake_quantize_constant
from mmdet_bpu.quantization.observers_cpu import Tally
from mmdet_bpu.quantization.plan import SitePlan

Quantizers = Mapping[str, FakeQuantizer]


@dataclass(frozen=True)
class InnerSites:
    """Plans of the sites inside one opened call.

    Attributes:
        plans (dict[str, SitePlan]): Function and its repetition inside the call, as in
            ``'mul.1'`` -> plan; in call order, sites without one left out.
        keys (tuple): Their runtime keys.
    """
    plans: Dict[str, SitePlan]
    keys: tuple

    @property
    def last(self) -> Optional[str]:
        """Quantizer of what the call returns."""
        return next((site.output for site in reversed(self.plans.values()) if site.output), None)

    def quantizers_of(self, sites: Sequence[str], quantizers: Quantizers,
                      constants: Sequence[str] = ()) -> Optional[List[FakeQuantizer]]:
        """Quantizers of the outputs of ``sites``, if they are all there is to do inside.

        Args:
            sites (Sequence[str]): Labels of sites whose outputs are quantized.
            quantizers (Mapping): By public name.
            constants (Sequence[str]): Those of ``sites`` whose second tensor is a constant.
        """
        if len(self.plans) != len(sites):
            return None
        found = []
        for label in sites:
            site = self.plans.get(label)
            if site is None or site.output is None or site.operands or site.weight or site.filled \
                    or list(site.constants) != ([1] if label in constants else []):
                return None
            found.append(quantizers[site.output])
        return found

    def grids(self, sites: Sequence[str], quantizers: Quantizers,
              constants: Sequence[str] = ()) -> Optional[np.ndarray]:
        """:func:`grids_of` the quantizers of ``sites``."""
        return grids_of(self.quantizers_of(sites, quantizers, constants))

    def constant(self, site: str, x: Tensor) -> Tensor:
        """The constant operand ``x`` of a site on its grid."""
        return fake_quantize_constant(x, self.plans[site].constants[1])


def grids_of(quantizers: Optional[Sequence[FakeQuantizer]]) -> Optional[np.ndarray]:
    """float32 (sites, 3): scale, lowest and highest integer; None if one does more than to round."""
    if quantizers is None or not all(_is_in(each, QuantState.QUANTIZE) and each.dtype != 'int32'
                                     for each in quantizers):
        return None
    return np.array([(each.scale.item(), *integer_range(each.dtype)) for each in quantizers],
                    np.float32)


def tallies_of(quantizers: Optional[Sequence[FakeQuantizer]], parts: int) -> Optional[List[Tally]]:
    """Room to count what each is given; None if one does more than to count, or two are the same."""
    if quantizers is None or len(set(map(id, quantizers))) < len(quantizers) \
            or not all(_is_in(each, QuantState.OBSERVE) for each in quantizers):
        return None
    tallies = [each.tally(parts) for each in quantizers]
    return None if None in tallies else tallies


def _is_in(quantizer: FakeQuantizer, state: QuantState) -> bool:
    """Whether a call of ``quantizer`` does what our class does in this state: nobody watches it."""
    return quantizer.rounds_alone and quantizer.state is state \
        and not quantizer._forward_hooks and not quantizer._forward_pre_hooks


def sites_inside(plan: Dict[tuple, SitePlan], captured: CapturedGraph) -> Dict[tuple, InnerSites]:
    """Runtime keys of the calls that were written out -> the sites inside each.

    Args:
        plan (dict): Runtime key -> plan of the site.
        captured (CapturedGraph): The calls that it was made from.
    """
    found: Dict[tuple, Dict[str, tuple]] = {key: {} for key in captured.opened}
    counts: Counter = Counter()
    for node in captured.graph.nodes:
        caller, key = node.meta.get('caller'), node.meta.get('key')
        if caller not in found:
            continue
        name = node.meta['function']
        if key in plan:
            found[caller][f'{name}.{counts[caller, name]}'] = key
        counts[caller, name] += 1
    return {caller: InnerSites({label: plan[key] for label, key in keys.items()},
                               tuple(keys.values()))
            for caller, keys in found.items()}
