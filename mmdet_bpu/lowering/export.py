"""From a quantized graph with scales to fake-quantized HBIR."""
from typing import Sequence

from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.lowering.hbir import lower_graph


def export_network(network: QuantizedGraph) -> ModuleOp:
    """Fake-quantized HBIR of one network.

    Args:
        network (QuantizedGraph): With scales, see
            :func:`mmdet_bpu.quantization.quantized_graphs`.

    Raises:
        BpuError: A quantizer was never calibrated, or an op has no integer form (site named).
    """
    for row in network.rows:
        if row['dtype'] != 'int32' and not row['calibrated']:
            raise BpuError(f'{row["quantizer"]} has no scale: the checkpoint is not calibrated')
    return lower_graph(network.graph, network.scales)


def export_networks(networks: Sequence[QuantizedGraph]) -> ModuleOp:
    """HBIR of the networks of a detector; today there is one.

    Raises:
        BpuError: See :func:`export_network`; or there are several, which have no form yet.
    """
    if len(networks) != 1:
        raise BpuError(f'expected a detector of one network, found {len(networks)}')
    return export_network(networks[0])
