"""Latencies, operations and DDR traffic that the vendor publishes of whole models.

It publishes no clock, array size or bandwidth of a BPU core. What these rows imply of them is fitted by
``benchmarks/cost_fit.py``, which builds the models and counts for itself.
"""
from dataclasses import dataclass

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
