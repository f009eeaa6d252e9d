"""The sites inside one written-out call, and what their quantizers do now."""
from collections import Counter
from dataclasses import dataclass
from typing import Dict, Mapping, Optional, Sequence

import numpy as np
from torch import Tensor

from mmdet_bpu.graph.capture import CapturedGraph
from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.quantization.fake_quant import FakeQuantizer, QuantState, fake_quantize_constant
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

    def grids(self, sites: Sequence[str], quantizers: Quantizers,
              constants: Sequence[str] = ()) -> Optional[np.ndarray]:
        """Grids of the outputs of ``sites``, if they are all there is to do inside.

        Args:
            sites (Sequence[str]): Labels of sites whose outputs are rounded.
            quantizers (Mapping): By public name.
            constants (Sequence[str]): Those of ``sites`` whose second tensor is a constant.

        Returns:
            np.ndarray | None: float32 (sites, 3): scale, lowest and highest integer. None where
            another site is quantized, or a quantizer does more than to round.
        """
        if len(self.plans) != len(sites):
            return None
        rows = []
        for label in sites:
            site = self.plans.get(label)
            if site is None or site.output is None or site.operands or site.weight or site.filled \
                    or list(site.constants) != ([1] if label in constants else []):
                return None
            quantizer = quantizers[site.output]
            if not rounds_alone(quantizer):
                return None
            rows.append((quantizer.scale.item(), *integer_range(quantizer.dtype)))
        return np.array(rows, np.float32)

    def constant(self, site: str, x: Tensor) -> Tensor:
        """The constant operand ``x`` of a site on its grid."""
        return fake_quantize_constant(x, self.plans[site].constants[1])


def rounds_alone(quantizer: FakeQuantizer) -> bool:
    """Whether all that a call of ``quantizer`` does is to round: nobody observes or watches it."""
    return type(quantizer) is FakeQuantizer and quantizer.state is QuantState.QUANTIZE \
        and quantizer.dtype != 'int32' \
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
