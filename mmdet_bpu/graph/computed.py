"""What a graph computes beside its structure: parameters of its operations and constants, as plain data.

Scales that were chosen for one computation do not hold for another of the same shapes: another slope of
a leaky relu, another temperature of a positional encoding. Weights have a checksum of their own; constants
that are computed are compared by figures of them, since machines differ in their last bits.
"""
import json
from typing import Any, Dict, List, Mapping, Optional, Sequence

import torch
from torch import Tensor

from mmdet_bpu.graph.quantized_graph import QuantizedGraph

TOLERANCE = 1e-4  # of a constant's mean magnitude


def computed_by(networks: Sequence[QuantizedGraph]) -> List[Dict[str, Any]]:
    """A row an operation, in order: site, parameters, and figures of its constants that are no parameters."""
    rows = []
    for network in networks:
        values = network.graph.values
        for op in network.graph.ops:
            constants = [_figures(values[name].data) for name in op.inputs
                         if values[name].is_constant and not values[name].origin]
            rows.append(dict(site=op.site, params=json.dumps(dict(op.params, kind=op.kind), sort_keys=True,
                                                             default=str), constants=constants))
    return rows


def first_difference(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
                     ) -> Optional[str]:
    """Where two of :func:`computed_by` differ first, or None."""
    for old, new in zip(before, now):
        if (old['site'], old['params']) != (new['site'], new['params']):
            return f'{old["site"]} was {old["params"]}, now {new["site"]} is {new["params"]}'
        if len(old['constants']) != len(new['constants']) or not all(
                map(_alike, old['constants'], new['constants'])):
            return f'a constant of {old["site"]} has other values (mean, mean magnitude, mean along a ramp ' \
                   f'were {old["constants"]}, now they are {new["constants"]})'
    if len(before) != len(now):
        return f'it had {len(before)} operations, now it has {len(now)}'
    return None


def _figures(constant: Tensor) -> List[float]:
    """Mean, mean magnitude, and mean along a ramp, which another order of the elements changes."""
    flat = torch.nan_to_num(constant.detach().double().cpu().flatten(), posinf=1e30, neginf=-1e30)
    if not flat.numel():
        return [0.0, 0.0, 0.0]
    ramp = torch.linspace(0, 1, flat.numel(), dtype=torch.float64)
    return [flat.mean().item(), flat.abs().mean().item(), (flat * ramp).mean().item()]


def _alike(before: Sequence[float], now: Sequence[float]) -> bool:
    return all(abs(old - new) <= TOLERANCE * max(abs(before[1]), abs(now[1]))
               for old, new in zip(before, now))
