"""What is estimated of one inference, and the vendor's names for it."""
from dataclasses import asdict, dataclass
from functools import cached_property

from mmdet_bpu.compiler.march import NOMINAL_CLOCK_HZ, March
from mmdet_bpu.version import __version__

COST_MODEL_VERSION = 2
"""Raised whenever an estimate of the same program may come out otherwise; 1 was the one of
mmdet_bpu 0.1."""

ESTIMATE_NOTE = ('Estimate by a cost model fitted to twelve published latencies, not a measurement '
                 'on a board. A published model left out of the fit is predicted within -20 % to '
                 '+25 %.')


@dataclass(frozen=True)
class LayerEstimate:
    """One instruction.

    Attributes:
        site (str): Its place in the model.
        op (str): Its operation.
        shape (tuple[int, ...]): Of its first result.
        dtype (str): Of its first result.
        unit (str): Unit that computes it, '' if none.
        macs (int): Multiply-accumulates.
        filled (float): Part of the MAC array's lanes that work, in (0, 1].
        int16 (bool): Whether it reads int16 activations.
        constant_bytes (int): Of weights, biases and other constants, a part of ``bytes_read``.
        bytes_read (int): From DDR, constants included.
        bytes_written (int): To DDR.
        compute_cycles (float): At the nominal clock.
        ddr_cycles (float): At the nominal clock; they add to the compute cycles.
    """
    site: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    unit: str
    macs: int
    filled: float
    int16: bool
    constant_bytes: int
    bytes_read: int
    bytes_written: int
    compute_cycles: float
    ddr_cycles: float

    @property
    def time_us(self) -> float:
        return (self.compute_cycles + self.ddr_cycles) / NOMINAL_CLOCK_HZ * 1e6

    @property
    def compute_us(self) -> float:
        return self.compute_cycles / NOMINAL_CLOCK_HZ * 1e6

    @property
    def ddr_us(self) -> float:
        return self.ddr_cycles / NOMINAL_CLOCK_HZ * 1e6

    @property
    def activation_bytes(self) -> int:
        """Read and written in DDR without constants."""
        return self.bytes_read + self.bytes_written - self.constant_bytes

    @property
    def bound_by(self) -> str:
        """What takes more of its time."""
        if not self.compute_cycles + self.ddr_cycles:
            return 'nothing'
        return 'compute' if self.compute_cycles >= self.ddr_cycles else 'DDR'

    @property
    def output(self) -> str:
        """First result, such as '1x256x10 si32'."""
        return f'{"x".join(map(str, self.shape))} {self.dtype}'


@dataclass(frozen=True)
class OpTime:
    """Time of all instructions of one operation."""
    op: str
    count: int
    time_us: float


@dataclass(frozen=True)
class Estimate:
    """One inference on one core.

    Attributes:
        march (March): Whose figures were used.
        layers (list[LayerEstimate]): In the order they run.
        outputs (int): Number of output tensors.
        input_bytes (int): Of all inputs.
        output_bytes (int): Of all outputs.
        constant_bytes (int): Of all constants.
        arena_bytes (int): Of the activations.
    """
    march: March
    layers: list[LayerEstimate]
    outputs: int
    input_bytes: int
    output_bytes: int
    constant_bytes: int
    arena_bytes: int

    @property
    def note(self) -> str:
        """What a reader of the numbers must know."""
        return ' '.join(filter(None, (ESTIMATE_NOTE, self.march.note)))

    @property
    def overhead_us(self) -> float:
        """What an inference takes besides its layers."""
        march = self.march
        return (march.overhead_s.value + self.outputs * march.output_s.value) * 1e6

    @cached_property
    def latency_us(self) -> float:
        return self.overhead_us + sum(layer.time_us for layer in self.layers)

    @property
    def latency_ms(self) -> float:
        return self.latency_us / 1e3

    @property
    def images_per_second(self) -> float:
        return 1e6 / self.latency_us

    def throughput(self, cores: int) -> float:
        """Images per second of ``cores`` cores, each with images of its own.

        They share the DDR, which bounds them together. Not fitted: no rate of several cores is
        in our facts.

        Raises:
            BpuError: The march has not so many.
        """
        self.march.check_cores(cores)
        ddr_rate = self.march.ddr_bytes_per_cycle.value * NOMINAL_CLOCK_HZ
        moved = self.loaded_bytes + self.stored_bytes
        alone = cores * self.images_per_second
        return min(alone, ddr_rate / moved) if moved else alone

    @cached_property
    def loaded_bytes(self) -> int:
        """Read from DDR."""
        return sum(layer.bytes_read for layer in self.layers)

    @cached_property
    def stored_bytes(self) -> int:
        """Written to DDR."""
        return sum(layer.bytes_written for layer in self.layers)

    @property
    def ddr_megabytes(self) -> float:
        """DDR traffic, MB (1e6)."""
        return (self.loaded_bytes + self.stored_bytes) / 1e6

    @cached_property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def memory_bytes(self) -> int:
        """Constants and arena."""
        return self.constant_bytes + self.arena_bytes

    def share(self, layer: LayerEstimate) -> float:
        """Part of the latency that a layer takes, in [0, 1]."""
        return layer.time_us / self.latency_us

    def by_op(self) -> list[OpTime]:
        """Time by operation, the longest first."""
        times: dict[str, list[float]] = {}
        for layer in self.layers:
            times.setdefault(layer.op, []).append(layer.time_us)
        return sorted((OpTime(op, len(each), sum(each)) for op, each in times.items()),
                      key=lambda row: -row.time_us)

    def as_vendor_dict(self) -> dict:
        """The estimate under the names of the vendor's own report, JSON values.

        Returns:
            dict: 'summary' with 'performance', 'DDR access data', 'layer details' and 'model info';
            'march' with every figure and its origin; 'note'.
        """
        summary = {
            'performance': {
                'FPS': round(self.images_per_second, 2),
                'latency (us)': round(self.latency_us, 1),
                'latency (ms)': round(self.latency_ms, 3),
                'fixed overhead (us)': round(self.overhead_us, 1),
            },
            'DDR access data': {
                'DDR megabytes per run': round(self.ddr_megabytes, 3),
                'loaded bytes per run': self.loaded_bytes,
                'stored bytes per run': self.stored_bytes,
                'input memory': self.input_bytes,
                'output memory': self.output_bytes,
                'static memory': self.constant_bytes,
                'dynamic memory': self.arena_bytes,
                'min memory requirement': self.memory_bytes,
            },
            'layer details': self._layer_details(),
            'model info': {
                'BPU march': self.march.name,
                'BPU core number': 1,
                'compiling version': f'mmdet_bpu {__version__}',
                'cost model version': COST_MODEL_VERSION,
                'original conv ops': 2 * self.macs,
                'instructions': len(self.layers),
            },
        }
        return {'summary': summary, 'march': self._march_figures(), 'note': ESTIMATE_NOTE}

    def _layer_details(self) -> list[dict]:
        rows, start_us = [], self.overhead_us
        for layer in self.layers:
            rows.append({
                'layer name': layer.site,
                'op': layer.op,
                'output': layer.output,
                'macs': layer.macs,
                'origin ops': 2 * layer.macs,
                'bytes read': layer.bytes_read,
                'bytes written': layer.bytes_written,
                'unit': layer.unit,
                'lanes filled': round(layer.filled, 4),
                'compute cycles': round(layer.compute_cycles),
                'DDR cycles': round(layer.ddr_cycles),
                'bound by': layer.bound_by,
                'time (us)': round(layer.time_us, 3),
                'start (us)': round(start_us, 3),
                'share': round(self.share(layer), 5),
            })
            start_us += layer.time_us
        return rows

    def _march_figures(self) -> dict:
        march = self.march
        return {'name': march.name, 'boards': list(march.boards), 'limits of': march.limits_of,
                'cores': march.cores, 'float results of products': march.float_results,
                'left to the host': list(march.host_steps), 'note': march.note, 'nominal clock (Hz)': NOMINAL_CLOCK_HZ,
                'figures': {name: asdict(figure) for name, figure in march.figures().items()}}
