"""The BPU marches: figures of the performance estimate, each with its origin.

No figure here is a datasheet value. Those called *fitted* come from the vendor's published
latencies and traffic (``benchmarks/cost_fit.py``, from our own counts of twelve models); those called
*scaled* take the fitted value of ``nash-e`` times the ratio of the advertised TOPS of a core; those
called *assumed* are ours.
"""
from dataclasses import dataclass

from mmdet_bpu.errors import BpuError

# Cycles are printed at this clock. It is a unit, not a claim: no published figure depends on it.
NOMINAL_CLOCK_HZ = 1_000_000_000
UNITS_SOURCE = ('vendor\'s deployment guide of Journey 6B, table of marches '
                '(developer.horizon.auto/blog/13148)')
"""Where advertised TOPS and units of ``nash-h`` and ``nash-b`` come from."""


@dataclass(frozen=True)
class Figure:
    """One number of a march with where it comes from.

    Attributes:
        value: The number, in ``unit``.
        unit: Unit of the value.
        origin: 'fitted', 'scaled', 'assumed' or 'advertised', and from what.
    """
    value: float
    unit: str
    origin: str


@dataclass(frozen=True)
class March:
    """A BPU architecture that programs are checked against and estimated for (one core).

    Attributes:
        name: Name that the vendor's compiler takes.
        boards: Products with this march.
        limits_of: March whose published op limits apply.
        overhead_s: Fixed cost of one inference.
        output_s: Cost of each output tensor of an inference.
        int8_macs_per_cycle: Multiply-accumulates per nominal cycle, int8 x int8, lanes that are
            idle for want of channels included.
        int16_slowdown: Factor on the time of int16 x int8 products.
        vector_bytes_per_cycle: Bytes read and written per nominal cycle by all but products.
        ddr_bytes_per_cycle: DDR traffic per nominal cycle, reads and writes together.
        sram_bytes: On-chip memory that holds tensors between instructions.
        cores: Number of cores.
        float_results: Whether products may give floating-point results. Integer programs use none.
        host_steps: Steps that other marches can do on the BPU and this one leaves to the host.
        note: What a reader of the estimate must know, '' if nothing.
    """
    name: str
    boards: tuple[str, ...]
    limits_of: str
    overhead_s: Figure
    output_s: Figure
    int8_macs_per_cycle: Figure
    int16_slowdown: Figure
    vector_bytes_per_cycle: Figure
    ddr_bytes_per_cycle: Figure
    sram_bytes: Figure
    cores: int = 1
    float_results: bool = False
    host_steps: tuple[str, ...] = ()
    note: str = ''

    def figures(self) -> dict[str, Figure]:
        """The numbers, by the names of their fields."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Figure)}

    def check_cores(self, cores: int) -> int:
        """``cores``, if the march has so many.

        Raises:
            BpuError: It has not.
        """
        if not 1 <= cores <= self.cores:
            expected = '1' if self.cores == 1 else f'1 to {self.cores}'
            raise BpuError(f'parameter cores: expected {expected} on {self.name}, found {cores}')
        return cores


_FIT = 'fitted: latencies of 12 published nash-e models (benchmarks/cost_fit.py)'
_INT16 = Figure(2.0, 'x', 'assumed: an int16 operand is two int8 halves')

NASH_E = March(
    name='nash-e',
    boards=('Journey 6E', 'RDK S100'),
    limits_of='nash-e',
    overhead_s=Figure(327.9e-6, 's', _FIT),
    output_s=Figure(26.7e-6, 's', _FIT),
    int8_macs_per_cycle=Figure(13_880.0, 'MAC/cycle', _FIT),
    int16_slowdown=_INT16,
    vector_bytes_per_cycle=Figure(82.7, 'bytes/cycle', _FIT),
    ddr_bytes_per_cycle=Figure(66.3, 'bytes/cycle', _FIT),
    sram_bytes=Figure(2 * 2**20, 'bytes', 'fitted: DDR traffic of 12 published nash-e models '
                      '(benchmarks/cost_fit.py)'),
)


def _scaled(name: str, boards: tuple[str, ...], ratio: float, tops: str, note: str,
            limits_of: str = 'nash-e', **facts) -> March:
    """A march whose units are those of ``nash-e`` by the ratio of TOPS of a core, all else alike."""
    figures = {}
    for field, figure in NASH_E.figures().items():
        if field in ('int8_macs_per_cycle', 'vector_bytes_per_cycle'):
            figure = Figure(float(f'{figure.value * ratio:.4g}'), figure.unit,
                            f'scaled: nash-e x {tops} / 80 advertised TOPS')
        elif figure is not _INT16:
            figure = Figure(figure.value, figure.unit, f'{figure.origin.split(":")[0]}: value of '
                            'nash-e')
        figures[field] = figure
    return March(name, boards, limits_of, **figures, note=note, **facts)


NASH_M = _scaled(
    'nash-m', ('Journey 6M', 'RDK S100P'), 128 / 80, '128',
    note='Op limits of nash-m are not in our facts: those of nash-e are applied. The estimate is '
         'scaled from nash-e, not calibrated.')

NASH_P = _scaled(
    'nash-p', ('Journey 6P', 'RDK S600'), 560 / 4 / 80, '(560 / 4 cores)', limits_of='nash-p',
    cores=4, float_results=True,
    note='No latency of nash-p is published: its estimate (one of four cores) is scaled from '
         'nash-e, not calibrated.')

NASH_H = _scaled(
    'nash-h', ('Journey 6H', ), 420 / 3 / 80, '(420 / 3 cores)', limits_of='nash-p', cores=3,
    float_results=True,
    note='Of nash-h 420 TOPS and units like those of nash-p are published '
         f'({UNITS_SOURCE}); op limits, number of cores, memory and latencies are not. Limits are '
         'those of nash-p; three cores of 140 TOPS, as nash-p has four, are assumed; the estimate '
         'is scaled from nash-e, not calibrated.')

NASH_B = _scaled(
    'nash-b', ('Journey 6B', ), 18 / 80, '18', float_results=True,
    host_steps=('quantize', 'dequantize', 'topk'),
    note='Of nash-b 18 TOPS, no VPU and no SPU are published '
         f'({UNITS_SOURCE}): quantize, dequantize and top-k belong to the host. Op limits, memory '
         'and latencies are not. Limits are those of nash-e; on-chip memory and DDR are taken as '
         'those of nash-e, which may be too much; the estimate is scaled, not calibrated.')

MARCHES: dict[str, March] = {march.name: march
                             for march in (NASH_E, NASH_M, NASH_P, NASH_H, NASH_B)}
DEFAULT_MARCH = NASH_E.name


def get_march(name: str) -> March:
    """Look up a march.

    Args:
        name (str): 'nash-e', 'nash-m', 'nash-p', 'nash-h' or 'nash-b'.

    Raises:
        BpuError: The name is none of them.
    """
    if name not in MARCHES:
        boards = ', '.join(f'{" / ".join(march.boards)} is {march.name}'
                           for march in MARCHES.values())
        raise BpuError(f'unknown march {name!r}: expected one of {", ".join(sorted(MARCHES))} '
                       f'({boards})')
    return MARCHES[name]
