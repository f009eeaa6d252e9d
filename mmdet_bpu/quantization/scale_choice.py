"""Scales of any dtype for the tensors of a calibrated detector, from what its calibration saw."""
from typing import Dict, List

from torch import nn

from mmdet_bpu.program.dtypes import integer_range
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.quantization.fake_quant import FakeQuantizer
from mmdet_bpu.quantization.quantized_detector import public_name
from mmdet_bpu.quantization.saved_statistics import SavedStatistics
from mmdet_bpu.quantization.state import least_scales, quantization_of


class ScaleChoice:
    """Chooses scales as a calibration does; the detector keeps those that it has.

    Args:
        model (nn.Module): A prepared detector with its scales.
        statistics (SavedStatistics): Of the calibration that gave them.

    Raises:
        BpuError: The statistics are of another model.
    """

    def __init__(self, model: nn.Module, statistics: SavedStatistics) -> None:
        statistics.give(model)
        self.quantizers: Dict[str, FakeQuantizer] = {
            public_name(key): quantizer
            for key, quantizer in quantization_of(model).quantizers.items()}
        self.least: Dict[int, float] = {}
        for network in quantization_of(model).networks:
            for quantizer, least in least_scales(network, quantization_of(model)):
                self.least[id(quantizer)] = max(least, self.least.get(id(quantizer), 0.0))

    def scale(self, name: str, dtype: str) -> float:
        """Scale of a tensor in integers of ``dtype``: its own if that is its dtype.

        Args:
            name (str): Public name of a quantizer.
            dtype (str): ``int8`` or ``int16``.
        """
        quantizer = self.quantizers[name]
        if quantizer.dtype == dtype:
            return quantizer.scale.item()
        return max(quantizer.observer.scale(integer_range(dtype)), self.least.get(id(quantizer), 0.0))


def weight_names(model: nn.Module) -> List[str]:
    """Public names of all weights of products, in graph order."""
    return list(dict.fromkeys(
        network.weight_name(op) for network in quantization_of(model).networks
        for op in network.graph.ops if KINDS[op.kind].weight is not None))
