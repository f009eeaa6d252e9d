"""How far the cost model is off the published latencies, row by row, for the report."""
from dataclasses import dataclass

from mmdet_bpu.compiler.published import (PUBLISHED_NASH_E, PublishedModel, fit_roofline,
                                          predicted_latency_ms)


@dataclass(frozen=True)
class PublishedError:
    """A published row and what the cost model says of it.

    Attributes:
        model (PublishedModel): The row.
        predicted_ms (float): By the figures that are used.
        off (float): Predicted over published, less 1.
        off_left_out (float): The same, by figures fitted to the other rows alone.
    """
    model: PublishedModel
    predicted_ms: float
    off: float
    off_left_out: float


def published_errors() -> list[PublishedError]:
    """All published rows with their errors: the only thing that the report asks of the cost model."""
    used, found = fit_roofline(), []
    for model in PUBLISHED_NASH_E:
        others = fit_roofline(tuple(each for each in PUBLISHED_NASH_E if each is not model))
        predicted, left_out = (predicted_latency_ms(model, *fitted) for fitted in (used, others))
        found.append(PublishedError(model, predicted, predicted / model.latency_ms - 1,
                                    left_out / model.latency_ms - 1))
    return found


def likely_range(time: float, errors: list[PublishedError]) -> tuple[float, float]:
    """What an estimated time is if it is off as far as the worst of the rows left out of the fit.

    Returns:
        tuple[float, float]: Least and most, in the unit of ``time``.
    """
    off = [error.off_left_out for error in errors]
    return time / (1 + max(off)), time / (1 + min(off))
