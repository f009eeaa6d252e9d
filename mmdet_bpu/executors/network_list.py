"""An executable that is a list of networks."""
from collections import Counter

from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.protocol import KernelCounts, Network, Tensors
from mmdet_bpu.program.program import TensorSpec


class NetworkList:
    """See :class:`mmdet_bpu.executors.protocol.Executable`.

    Args:
        networks (list[Network]): At least one, in the order the host runs them.
        metadata (dict): The deployment contract.
    """

    def __init__(self, networks: list[Network], metadata: dict) -> None:
        self.networks = networks
        self.metadata = metadata

    def network(self, name: str) -> Network:
        """A network by its name.

        Raises:
            BpuError: There is none of that name.
        """
        for network in self.networks:
            if network.name == name:
                return network
        raise BpuError(f'no network {name!r} in this executable: expected one of {self._names()}')

    @property
    def inputs(self) -> list[TensorSpec]:
        return self._only().inputs

    @property
    def outputs(self) -> list[TensorSpec]:
        return self._only().outputs

    @property
    def kernel_counts(self) -> KernelCounts:
        total: KernelCounts = {}
        for network in self.networks:
            for name, counts in network.kernel_counts.items():
                total.setdefault(name, Counter()).update(counts)
        return total

    def run(self, inputs: Tensors) -> Tensors:
        """Run the only network; see :meth:`mmdet_bpu.executors.protocol.Network.run`."""
        return self._only().run(inputs)

    def _only(self) -> Network:
        if len(self.networks) != 1:
            raise BpuError(f'this executable has the networks {self._names()}, between which the '
                           'host has work to do: run each by its name')
        return self.networks[0]

    def _names(self) -> str:
        return ', '.join(repr(network.name) for network in self.networks)
