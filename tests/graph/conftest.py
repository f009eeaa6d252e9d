"""Detectors for these tests, and the whole chain of one spelling."""
from dataclasses import dataclass
from typing import Any, List

import pytest
import torch

from mmdet_bpu.analysis.qat_vs_int import compare_qat_int
from mmdet_bpu.graph.deploy_graph import capture_detector, deployed_part
from mmdet_bpu.hbir.builder import operations
from mmdet_bpu.hbir.passes import conversion_of
from mmdet_bpu.lowering.export import export_networks
from mmdet_bpu.quantization import quantized_graphs
from mmdet_bpu.quantization import prepare
from tests.stock_detectors import (calibrated, detector, execute, losses_of,  # noqa: F401
                                   run_quantized, small_detector, toy)

SHAPE = (4, 6)
IMAGE = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(0))


@dataclass
class Run:
    """What became of a function of the image.

    Attributes:
        kinds (list[str]): Of the operation graph; names of functions for ``unary``.
        instructions (list[str]): Of the integer program.
        comparison (dict): QAT against integers, op by op.
        model (nn.Module): Prepared and calibrated, in state quantize.
        program (ModuleOp): The integer program.
    """
    kinds: List[str]
    instructions: List[str]
    comparison: dict
    model: Any
    program: Any


@pytest.fixture
def through(toy, execute, calibrated):
    """Function (body, **modules) -> :class:`Run`; the graph must compute what the body does.

    ``body(detector, image)`` runs under one seed, so that constants that it draws are the same.
    """

    def run(body, qconfig=(), **modules) -> Run:

        def seeded(self, image):
            torch.manual_seed(0)
            return body(self, image)

        model = toy(seeded, **modules)
        graph = deployed_part(model, capture_detector(model, SHAPE))
        with torch.no_grad():
            expected = model(IMAGE)
        torch.testing.assert_close(execute(graph, IMAGE)[0], expected, atol=1e-5, rtol=1e-5)
        kinds = [op.params.get('fn', op.kind) for op in graph.ops]
        model = calibrated(prepare(model, dict(input_shape=SHAPE, qconfig=list(qconfig))), IMAGE)
        conversion = conversion_of(export_networks(quantized_graphs(model)))
        image = IMAGE.permute(0, 2, 3, 1).contiguous()
        names = [op.name.removeprefix('bpu.') for op in operations(conversion.result)]
        return Run(kinds, [n for n in names if n != 'constant'],
                   compare_qat_int(conversion, image), model, conversion.result)

    return run
