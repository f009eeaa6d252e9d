"""Our NMS and soft NMS beside the compiled operators of mmcv, bit for bit.

    python benchmarks/nms_against_mmcv.py

Needs full mmcv (with mmcv-lite there is nothing to compare with). Prints JSON: per operator how
many cases were tried, how many were equal, and the description of those that were not; exit code 1
if there are such. Equal means the same indices in the same order and, for soft NMS, the same bits
in the rows. Gaussian cases that have the same indices, but other last places because of the C
library's exponential, are counted apart, with the largest relative difference of a score.
"""
import argparse
import importlib
import itertools
import json
import sys
from typing import Iterator

import torch
from torch import Tensor

from mmdet_bpu.compat import EXT_NAME, has_compiled_ext
from mmdet_bpu.errors import BpuError, exit_on_error
from mmdet_bpu.mmcv_operators.nms import nms
from mmdet_bpu.mmcv_operators.softnms import GAUSSIAN, LINEAR, NAIVE, softnms

COUNTS = (0, 1, 2, 16, 17, 127, 128, 129, 1000, 3000)
SOFT_COUNTS = (0, 1, 2, 17, 300, 1000)
SCORE_LEVELS = (None, 16)  # None: real numbers; else that many different scores
METHODS = {'naive': NAIVE, 'linear': LINEAR, 'gaussian': GAUSSIAN}


def real(count: int, generator: torch.Generator) -> Tensor:
    """Corners anywhere in 200 x 200 px, sizes to 60 px."""
    corner = torch.rand(count, 2, generator=generator) * 200
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 60], 1)


def integer(count: int, generator: torch.Generator) -> Tensor:
    """Small integers: IoU at the threshold, touching, equal and empty boxes."""
    corner = torch.randint(0, 20, (count, 2), generator=generator)
    return torch.cat([corner, corner + torch.randint(0, 7, (count, 2), generator=generator)],
                     1).float()


def inverted(count: int, generator: torch.Generator) -> Tensor:
    """Corners in any order: areas of either sign."""
    return torch.randint(0, 12, (count, 4), generator=generator).float()


def clustered(count: int, generator: torch.Generator) -> Tensor:
    """A few places with many boxes each, as detectors give them."""
    centre = torch.randint(0, 10, (count, 2), generator=generator) * 100
    jitter = torch.randn(count, 4, generator=generator) * 5
    return torch.cat([centre, centre + 60], 1) + jitter


def broken(count: int, generator: torch.Generator) -> Tensor:
    """Real boxes; every fifth coordinate is 0, infinite, not a number or tiny."""
    boxes = real(count, generator)
    values = torch.tensor([0., torch.inf, -torch.inf, torch.nan, 1e-30])
    which = torch.randint(0, 5, boxes.shape, generator=generator)
    hit = torch.randint(0, 5, boxes.shape, generator=generator) == 0
    return torch.where(hit, values[which], boxes)


KINDS = {f.__name__: f for f in (real, integer, inverted, clustered, broken)}


def scenes(counts: tuple[int, ...]) -> Iterator[tuple[str, Tensor, Tensor, int]]:
    """(description, boxes, scores, offset) of every kind, count, score levels and offset."""
    generator = torch.Generator().manual_seed(0)
    for kind, count, levels, offset in itertools.product(KINDS, counts, SCORE_LEVELS, (0, 1)):
        scores = torch.rand(count, generator=generator)
        if levels:
            scores = (scores * levels).floor() / levels
        yield (f'{kind}, {count} boxes, {levels or "real"} score levels, offset {offset}',
               KINDS[kind](count, generator), scores, offset)


def compare_nms(compiled) -> dict:
    """Cases of ``nms``: numbers, and descriptions of the differing ones."""
    thresholds = (-0.5, 0., 0.3, 0.5, 0.7, 1.)
    cases, differing = 0, []
    for (name, boxes, scores, offset), threshold in itertools.product(scenes(COUNTS), thresholds):
        cases += 1
        arguments = dict(iou_threshold=threshold, offset=offset)
        ours, theirs = (op(boxes, scores, **arguments) for op in (nms, compiled.nms))
        if ours.dtype != theirs.dtype or not torch.equal(ours, theirs):
            differing.append(f'{name}, threshold {threshold}')
    return {'cases': cases, 'equal': cases - len(differing), 'differing': differing}


def run_soft(op, boxes: Tensor, scores: Tensor, arguments: dict) -> tuple[Tensor, Tensor]:
    """(indices, rows of boxes and scores) of one implementation."""
    dets = boxes.new_zeros(len(boxes), 5)
    kept = op(boxes.clone(), scores.clone(), dets, **arguments)
    return kept, dets[:len(kept)]


def compare_softnms(compiled, method: str) -> dict:
    """Cases of ``softnms`` under one method."""
    settings = [(0.3, 0.5, 1e-3), (0.5, 0.1, 0.1), (0., 2., 0.)]
    report = {'cases': 0, 'equal': 0, 'differing': []}
    same_indices, largest = 0, 0.
    for (name, boxes, scores, offset), (threshold, sigma, low) in itertools.product(
            scenes(SOFT_COUNTS), settings):
        report['cases'] += 1
        arguments = dict(iou_threshold=threshold, sigma=sigma, min_score=low,
                         method=METHODS[method], offset=offset)
        (ours, our_dets), (theirs, their_dets) = (
            run_soft(op, boxes, scores, arguments) for op in (softnms, compiled.softnms))
        indices = ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        if indices and torch.equal(our_dets.view(torch.int32), their_dets.view(torch.int32)):
            report['equal'] += 1
        elif method == 'gaussian' and indices and torch.equal(our_dets.isnan(),
                                                              their_dets.isnan()):
            same_indices += 1
            difference = (our_dets[:, 4] / their_dets[:, 4] - 1).abs().nan_to_num(0)
            largest = max(largest, float(difference.max()))
        else:
            report['differing'].append(f'{name}, threshold {threshold}, sigma {sigma}, low {low}')
    if method == 'gaussian':
        report.update(same_indices_other_last_places=same_indices,
                      largest_relative_difference=largest)
    return report


@exit_on_error()
def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if not has_compiled_ext():
        raise BpuError(f'expected an mmcv with compiled operators ({EXT_NAME}), found none; '
                       'install full mmcv instead of mmcv-lite')
    compiled = importlib.import_module(EXT_NAME)
    report = {'torch': torch.__version__, 'processor': torch.backends.cpu.get_cpu_capability(),
              'nms': compare_nms(compiled)}
    for method in METHODS:
        report[f'softnms {method}'] = compare_softnms(compiled, method)
    print(json.dumps(report, indent=1))
    if any(part['differing'] for part in report.values() if isinstance(part, dict)):
        sys.exit(1)


if __name__ == '__main__':
    main()
