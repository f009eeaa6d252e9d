"""The layers that take the most time, and what would make each cheaper, by the cost model."""
from dataclasses import asdict, dataclass

from mmdet_bpu.compiler.estimate import Estimate, LayerEstimate
from mmdet_bpu.compiler.unit_work import LANES, VECTOR

SAMPLERS = ('bpu.grid_sample', 'bpu.deform_conv2d')
WORTH_SAYING = 0.1
"""Part of a layer's time that a way has to save."""


@dataclass(frozen=True)
class Way:
    """A change and the most that it saves, us, all else alike."""
    change: str
    saves_us: float

    def __str__(self) -> str:
        return f'{self.change} (up to {self.saves_us:.1f} us)'


@dataclass(frozen=True)
class DearLayer:
    """A layer and the ways to make it cheaper, those that save most first."""
    site: str
    op: str
    output: str
    time_us: float
    share: float
    bound_by: str
    ways: tuple[Way, ...]

    def as_dict(self) -> dict:
        """JSON values."""
        return asdict(self)


def dearest_layers(estimate: Estimate, count: int = 3) -> list[DearLayer]:
    """The layers with the longest times.

    Args:
        estimate (Estimate): Of the program.
        count (int): How many. Defaults to 3.
    """
    longest = sorted(estimate.layers, key=lambda layer: -layer.time_us)[:count]
    return [DearLayer(layer.site, layer.op, layer.output, layer.time_us, estimate.share(layer),
                      layer.bound_by, tuple(ways_of(layer, estimate))) for layer in longest]


def ways_of(layer: LayerEstimate, estimate: Estimate) -> list[Way]:
    """What would make a layer cheaper; empty where only less of it would."""
    per_byte = layer.ddr_us / max(layer.bytes_read + layer.bytes_written, 1)
    on_activations = layer.activation_bytes * per_byte
    sram = estimate.march.sram_bytes.value / 2**20
    ways = []
    if layer.int16:
        halved = layer.compute_us * (1 - 1 / estimate.march.int16_slowdown.value)
        ways.append(Way('int8 in place of int16', halved + on_activations / 2))
    if layer.filled < 1:
        ways.append(Way(f'channels of a group in multiples of {LANES}: {layer.filled:.0%} of the '
                        f'{layer.unit}\'s lanes work', layer.compute_us * (1 - layer.filled)))
    if layer.op in SAMPLERS:
        ways.append(Way('half the sampled points, levels or channels', layer.time_us / 2))
    elif layer.unit == VECTOR:
        ways.append(Way('half the elements: a smaller input or fewer channels', layer.time_us / 2))
    elif layer.macs:
        ways.append(Way('half the products: fewer channels, a smaller kernel or a smaller input',
                        layer.compute_us / 2))
    if layer.constant_bytes:
        ways.append(Way(f'half the {layer.constant_bytes / 1e6:.2f} MB of weights',
                        layer.constant_bytes * per_byte / 2))
    if layer.activation_bytes:
        ways.append(Way(f'tensors that stay in {sram:g} MiB on chip: '
                        f'{layer.activation_bytes / 1e6:.2f} MB pass through DDR', on_activations))
    worth = [way for way in ways if way.saves_us >= WORTH_SAYING * layer.time_us > 0]
    return sorted(worth, key=lambda way: -way.saves_us)
