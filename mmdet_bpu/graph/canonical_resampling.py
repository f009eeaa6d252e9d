"""Translation of captured resizing: which pixels torch reads, as a start and a step per axis."""
import warnings
from typing import Any, Dict, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from mmdet_bpu.graph.call_arguments import refuse, shape_of
from mmdet_bpu.program.resize_positions import POSITION_BITS, nearest_positions

LARGEST_DEVIATION = 1e-3  # px; float32 positions of 4096 px are off by less


def _as_torch_reads(arguments: Dict[str, Any], shape: Tuple[int, int]) -> List[List[float]]:
    """Positions along height and width that torch's own call reads, in px."""
    rows = torch.arange(shape[0], dtype=torch.float32).view(1, 1, -1, 1).expand(1, 1, *shape)
    columns = torch.arange(shape[1], dtype=torch.float32).expand(1, 1, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # advice about arguments, given when the model ran
        read: Tensor = F.interpolate(torch.cat([rows, columns], 1), **arguments)
    return [read[0, 0, :, 0].tolist(), read[0, 1, 0, :].tolist()]


def _steps(arguments: Dict[str, Any], shape: Tuple[int, int], size: Tuple[int, int]
           ) -> List[float]:
    """Distance of two results along height and width in px, as torch computes it."""
    factor = None if arguments.get('recompute_scale_factor') else arguments.get('scale_factor')
    if arguments.get('align_corners'):
        return [(n - 1) / (m - 1) if m > 1 else 0.0 for n, m in zip(shape, size)]
    if factor is not None:
        factors = factor if isinstance(factor, (tuple, list)) else [factor] * 2
        return [1.0 / float(f) for f in factors]
    return [n / m for n, m in zip(shape, size)]


def interpolate(b, node: fx.Node, args: list, kwargs: dict):
    """Nearest in both of torch's rules, and bilinear."""
    names = ('input', 'size', 'scale_factor', 'mode', 'align_corners', 'recompute_scale_factor',
             'antialias')
    p = {**dict(zip(names, args)), **kwargs}
    x, mode = b.value(p.pop('input')), p.setdefault('mode', 'nearest')
    shape = b.info(x).shape
    if mode not in ('nearest', 'nearest-exact', 'bilinear') or p.get('antialias') \
            or len(shape) != 4:
        refuse(node, f'a resize of {len(shape)} dimensions with mode {mode!r} and antialias='
               f'{bool(p.get("antialias"))}; only nearest, nearest-exact and bilinear of images')
    before, after = tuple(shape[2:]), tuple(shape_of(node)[2:])
    if before == after and p.get('scale_factor') is None:
        return x
    read, steps = _as_torch_reads(p, before), _steps(p, before, after)
    if mode == 'bilinear':
        return _bilinear(b, node, x, read, steps, bool(p.get('align_corners')))
    pairs = [nearest_positions(*axis) for axis in zip(read, before, steps)]
    if None in pairs:
        refuse(node, f'a nearest resize of {before} to {after} px takes pixels in torch that no '
               f'start and step in 2**-{POSITION_BITS} px take')
    start, step = ([value / 2**POSITION_BITS for value in values] for values in zip(*pairs))
    return b.op('resize_nearest', [x], shape_of(node), start=start, step=step)


def _bilinear(b, node: fx.Node, x: str, read: List[List[float]], steps: List[float],
              corners: bool) -> str:
    start = [0.0 if corners else step / 2 - 0.5 for step in steps]
    for axis, positions in enumerate(read):
        for i, position in enumerate(positions):
            inside = min(max(start[axis] + i * steps[axis], 0.0), b.info(x).shape[2 + axis] - 1)
            assert abs(inside - position) < LARGEST_DEVIATION, (node.meta['site'], axis, i)
    return b.op('resize_bilinear', [x], shape_of(node), start=start, step=steps)
