"""How far the cost model is off the published latencies, row by row, for the report."""
from dataclasses import dataclass

from mmdet_bpu.compiler.published import PUBLISHED_NASH_E, PublishedModel

# As benchmarks/cost_fit.py prints them, of its own counts: latency, ms, by the figures of nash-e; and what
# a fit to the other rows is off by.
_FITTED = {
    'MobileNetv1': (0.485, 0.108),
    'MobileNetv2': (0.46, -0.067),
    'GoogleNet': (0.685, -0.004),
    'ResNet50': (1.072, -0.146),
    'Unet_mobilenetv1': (1.725, -0.020),
    'YOLOv2_Darknet19': (4.746, 0.000),
    'Detr_resnet50': (31.765, 0.247),
    'Deformable_detr_resnet50': (218.378, -0.062),
    'Horizon_swin_transformer': (3.752, -0.197),
    'SSD_MobileNetv1': (0.871, 0.086),
    'Vit_small': (2.486, 0.087),
    'FCOS3D_efficientnetb0': (3.394, -0.052),
}


@dataclass(frozen=True)
class PublishedError:
    """A published row and what the cost model says of it.

    Attributes:
        model (PublishedModel): The row.
        predicted_ms (float): By the figures that are used.
        off_left_out (float): Predicted over published, less 1, by figures fitted to the other rows alone.
    """
    model: PublishedModel
    predicted_ms: float
    off_left_out: float

    @property
    def off(self) -> float:
        """float: Predicted over published, less 1."""
        return self.predicted_ms / self.model.latency_ms - 1


def published_errors() -> list[PublishedError]:
    """All published rows with their errors: the only thing that the report asks of the cost model."""
    return [PublishedError(model, *_FITTED[model.name]) for model in PUBLISHED_NASH_E]


def likely_range(time: float, errors: list[PublishedError]) -> tuple[float, float]:
    """What an estimated time is if it is off as far as the worst of the rows left out of the fit.

    Returns:
        tuple[float, float]: Least and most, in the unit of ``time``.
    """
    off = [error.off_left_out for error in errors]
    return time / (1 + max(off)), time / (1 + min(off))
