"""From a quantized graph with scales to fake-quantized HBIR, and on to integers."""
from dataclasses import dataclass
from typing import List, Optional, Sequence

from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.hbir.passes import conversion_of
from mmdet_bpu.hbir.passes.conversion import Conversion, Decision
from mmdet_bpu.lowering.decisions import decisions_of
from mmdet_bpu.lowering.hbir import Lowering


@dataclass(frozen=True)
class LoweredNetwork:
    """A network as fake-quantized HBIR.

    Attributes:
        module (ModuleOp): The HBIR.
        decisions (list[Decision]): What the quantized graph decided about its values.
    """
    module: ModuleOp
    decisions: List[Decision]

    def convert(self, metadata: Optional[dict] = None) -> Conversion:
        """Integer form, whose roundings, products and tables are those that were decided.

        Raises:
            BpuError: See :func:`mmdet_bpu.hbir.passes.convert`; or they are others.
        """
        return conversion_of(self.module, metadata, self.decisions)


def lower_network(network: QuantizedGraph) -> LoweredNetwork:
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
    lowering = Lowering(network.graph, network.scales)
    module = lowering.run()
    values = {name: stored.ssa for name, stored in lowering.values.items()}
    return LoweredNetwork(module, decisions_of(network, values))


def lower_networks(networks: Sequence[QuantizedGraph]) -> LoweredNetwork:
    """HBIR of the networks of a detector; today there is one.

    Raises:
        BpuError: See :func:`lower_network`; or there are several, which have no form yet.
    """
    if len(networks) != 1:
        raise BpuError(f'expected a detector of one network, found {len(networks)}')
    return lower_network(networks[0])


def export_networks(networks: Sequence[QuantizedGraph]) -> ModuleOp:
    """The HBIR of :func:`lower_networks` alone."""
    return lower_networks(networks).module
