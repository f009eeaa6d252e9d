"""Latencies that the vendor publishes, and the roofline they imply.

The vendor publishes no clock, array size or bandwidth of a BPU core, but it does publish latency,
operations and DDR traffic of whole models. Three numbers are fitted to them:

    latency = overhead + operations / compute_rate + ddr_bytes / ddr_rate

The sum (no overlap of compute and traffic) is used rather than a maximum because it keeps its
meaning when a model is cut into layers: the layers' estimates add up to the model's.
"""
from dataclasses import dataclass

import numpy as np

SOURCE = ('Vendor manual (OpenExplorer J6, 3.0.22), page "Benchmark of Model Performance": J6E '
          'board, latency on one core without post-processing')


@dataclass(frozen=True)
class PublishedModel:
    """One row of the vendor's benchmark page.

    Attributes:
        name: Model name as printed there.
        input_shape: (N, C, H, W) of the input image.
        gops: Operations per image in 1e9, two per multiply-accumulate.
        latency_ms: Latency of one image on one core, ms.
        ddr_read_mb: DDR bytes read per image, MB (1e6).
        ddr_write_mb: DDR bytes written per image, MB (1e6).
    """
    name: str
    input_shape: tuple[int, int, int, int]
    gops: float
    latency_ms: float
    ddr_read_mb: float
    ddr_write_mb: float


PUBLISHED_NASH_E = (
    PublishedModel('MobileNetv1', (1, 3, 224, 224), 1.14, 0.455, 4.56, 0.0041),
    PublishedModel('MobileNetv2', (1, 3, 224, 224), 0.63, 0.48, 3.95, 0.0041),
    PublishedModel('GoogleNet', (1, 3, 224, 224), 3.0, 0.687, 6.93, 0.0041),
    PublishedModel('ResNet50', (1, 3, 224, 224), 7.72, 1.165, 26.08, 0.0041),
    PublishedModel('Unet_mobilenetv1', (1, 3, 1024, 2048), 7.36, 1.748, 16.49, 11.67),
    PublishedModel('YOLOv2_Darknet19', (1, 3, 608, 608), 62.94, 4.746, 51.86, 0.77),
    PublishedModel('Detr_resnet50', (1, 3, 800, 1333), 202.99, 28.139, 399.17, 263.34),
    PublishedModel('Deformable_detr_resnet50', (1, 3, 800, 1333), 425.65, 224.57, 3663.77,
                   2724.37),
    PublishedModel('Horizon_swin_transformer', (1, 3, 224, 224), 8.98, 4.292, 43.32, 4.82),
    PublishedModel('SSD_MobileNetv1', (1, 3, 300, 300), 2.3, 0.843, 6.28, 0.25),
    PublishedModel('Vit_small', (1, 3, 224, 224), 9.2, 2.37, 31.35, 5.56),
    PublishedModel('FCOS3D_efficientnetb0', (1, 3, 512, 896), 19.94, 3.517, 11.45, 4.14),
)


def fit_roofline(models: tuple[PublishedModel, ...] = PUBLISHED_NASH_E) -> tuple[float, ...]:
    """Fit the three numbers of the roofline by least squares on the relative error.

    Args:
        models (tuple[PublishedModel, ...]): Rows to fit. Defaults to all published ones.

    Returns:
        tuple[float, ...]: overhead in seconds, compute rate in operations/s, DDR rate in bytes/s.
    """
    terms = np.array([[1.0, model.gops * 1e9, (model.ddr_read_mb + model.ddr_write_mb) * 1e6]
                      for model in models])
    seconds = np.array([model.latency_ms * 1e-3 for model in models])
    relative = terms / seconds[:, None]
    unit = np.abs(relative).max(axis=0)
    solution, *_ = np.linalg.lstsq(relative / unit, np.ones(len(models)), rcond=None)
    overhead, per_operation, per_byte = solution / unit
    return float(overhead), float(1 / per_operation), float(1 / per_byte)


def predicted_latency_ms(model: PublishedModel, overhead_s: float, operations_per_s: float,
                         ddr_bytes_per_s: float) -> float:
    """Latency that the roofline gives for a published model, from its published traffic (ms)."""
    traffic = (model.ddr_read_mb + model.ddr_write_mb) * 1e6
    return 1e3 * (overhead_s + model.gops * 1e9 / operations_per_s + traffic / ddr_bytes_per_s)
