"""Non-maximum suppression in exact rationals: quadratic, one pair of boxes at a time."""
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Callable, Iterable, Sequence

import pytest

Box = Sequence[float]


def exact_iou(a: Box, b: Box, offset: int) -> Fraction | None:
    """IoU of two boxes, None where it is 0 / 0."""
    ax1, ay1, ax2, ay2 = map(Fraction, a)
    bx1, by1, bx2, by2 = map(Fraction, b)
    width = max(Fraction(0), min(ax2, bx2) - max(ax1, bx1) + offset)
    height = max(Fraction(0), min(ay2, by2) - max(ay1, by1) + offset)
    inter = width * height
    union = ((ax2 - ax1 + offset) * (ay2 - ay1 + offset) +
             (bx2 - bx1 + offset) * (by2 - by1 + offset) - inter)
    return inter / union if union else None


def exact_nms(boxes: Sequence[Box], order: Iterable[int], threshold: float, offset: int = 0,
              labels: Sequence[int] | None = None) -> list[int]:
    """Indices kept when the boxes are asked in ``order``; labels keep their boxes apart."""
    kept = []
    for i in order:
        overlaps = [exact_iou(boxes[k], boxes[i], offset) for k in kept
                    if labels is None or labels[k] == labels[i]]
        if not any(iou is not None and iou > Fraction(threshold) for iou in overlaps):
            kept.append(i)
    return kept


def threshold_distance(boxes: Sequence[Box], threshold: float, offset: int = 0) -> float:
    """How near the IoU of any two boxes comes to the threshold."""
    overlaps = [exact_iou(a, b, offset) for i, a in enumerate(boxes) for b in boxes[:i]]
    return min((float(abs(iou - Fraction(threshold))) for iou in overlaps if iou is not None),
               default=1.)


@dataclass
class SoftResult:
    """What soft suppression gives.

    Attributes:
        kept (list[int]): Indices in the order taken.
        scores (list[float]): Their lowered scores.
        margin (float): Smallest relative difference of two numbers that were compared.
    """
    kept: list[int]
    scores: list[float]
    margin: float = 1.


def weight_of(iou: Fraction, method: str, threshold: float, sigma: float) -> Fraction:
    if method == 'gaussian':
        exponent = -iou * iou / Fraction(sigma)
        with localcontext() as context:
            context.prec = 40
            return Fraction((Decimal(exponent.numerator) / Decimal(exponent.denominator)).exp())
    if iou < Fraction(threshold):
        return Fraction(1)
    return Fraction(0) if method == 'naive' else 1 - iou


def exact_soft_nms(boxes: Sequence[Box], scores: Sequence[float], method: str,
                   threshold: float = 0.25, sigma: float = 0.5, min_score: float = 0.,
                   offset: int = 0) -> SoftResult:
    """Soft suppression on a list, in which a box that goes is replaced by the last one."""
    result = SoftResult([], [])

    def less(a: Fraction, b: Fraction) -> bool:
        if a != b:
            result.margin = min(result.margin, float(abs(a - b) / max(abs(a), abs(b))))
        return a < b

    left = [(i, Fraction(score)) for i, score in enumerate(scores)]
    while left:
        best = 0
        for place in range(1, len(left)):
            if less(left[best][1], left[place][1]):
                best = place
        chosen, score = left[best]
        result.kept.append(chosen)
        result.scores.append(float(score))
        left[best] = left[0]
        del left[0]
        place = 0
        while place < len(left):
            index, score = left[place]
            iou = exact_iou(boxes[chosen], boxes[index], offset)
            if iou is not None:
                if method != 'gaussian':
                    less(iou, Fraction(threshold))
                score *= weight_of(iou, method, threshold, sigma)
            if less(score, Fraction(min_score)):
                left[place] = left[-1]
                del left[-1]
            else:
                left[place] = index, score
                place += 1
    return result


@pytest.fixture(scope='session')
def nms_oracle() -> Callable[..., list[int]]:
    return exact_nms


@pytest.fixture(scope='session')
def soft_nms_oracle() -> Callable[..., SoftResult]:
    return exact_soft_nms


@pytest.fixture(scope='session')
def distance_oracle() -> Callable[..., float]:
    return threshold_distance
