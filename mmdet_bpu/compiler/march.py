"""The BPU marches: figures of the performance estimate, each with its origin.

No figure here is a datasheet value. Those called *fitted* come from the vendor's published
latencies (:mod:`mmdet_bpu.compiler.published`); those called *scaled* take the fitted value of
``nash-e`` times the ratio of the advertised TOPS; those called *assumed* are ours, chosen so
that the published traffic of a ResNet-50 comes out, and change only which tensors are counted
as DDR traffic and what non-convolution operations cost.
"""
from dataclasses import dataclass

from mmdet_bpu.errors import BpuError

# Cycles are printed at this clock. It is a unit, not a claim: no published figure depends on it.
NOMINAL_CLOCK_HZ = 1_000_000_000


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
        int8_macs_per_cycle: Multiply-accumulates per nominal cycle, int8 x int8, lanes that are idle
            for want of channels included.
        int16_slowdown: Factor on the time of int16 x int8 products.
        vector_bytes_per_cycle: Bytes read and written per nominal cycle by all but products.
        ddr_bytes_per_cycle: DDR traffic per nominal cycle, reads and writes together.
        sram_bytes: On-chip memory that holds tensors between instructions.
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
    note: str = ''

    def figures(self) -> dict[str, Figure]:
        """The numbers, by the names of their fields."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Figure)}


_FIT = 'fitted: 8 published nash-e latencies (published.fit_roofline)'
_INT16 = Figure(2.0, 'x', 'assumed: an int16 operand is two int8 halves')
_SRAM = Figure(4 * 2**20, 'bytes', 'assumed: at least the 1.6 MB that let ResNet50 at 224 x 224 '
               'write nothing but its output to DDR in the published table')


def _vector(scale: float) -> Figure:
    return Figure(512.0 * scale, 'bytes/cycle', 'assumed: no published figure')


NASH_E = March(
    name='nash-e',
    boards=('Journey 6E', 'RDK S100'),
    limits_of='nash-e',
    overhead_s=Figure(302e-6, 's', _FIT),
    output_s=Figure(26e-6, 's', _FIT),
    int8_macs_per_cycle=Figure(11_880.0, 'MAC/cycle', _FIT),
    int16_slowdown=_INT16,
    vector_bytes_per_cycle=_vector(1.0),
    ddr_bytes_per_cycle=Figure(33.1, 'bytes/cycle', _FIT),
    sram_bytes=_SRAM,
)

NASH_M = March(
    name='nash-m',
    boards=('Journey 6M', 'RDK S100P'),
    limits_of='nash-e',
    overhead_s=Figure(302e-6, 's', 'fitted: value of nash-e'),
    output_s=Figure(26e-6, 's', 'fitted: value of nash-e'),
    int8_macs_per_cycle=Figure(19_010.0, 'MAC/cycle',
                               'scaled: nash-e x 128 / 80 advertised TOPS'),
    int16_slowdown=_INT16,
    vector_bytes_per_cycle=_vector(1.6),
    ddr_bytes_per_cycle=Figure(33.1, 'bytes/cycle', 'fitted: value of nash-e'),
    sram_bytes=_SRAM,
    note='Op limits of nash-m are not in our facts: those of nash-e are applied. The estimate is '
         'scaled from nash-e, not calibrated.',
)

NASH_P = March(
    name='nash-p',
    boards=('Journey 6P', 'RDK S600'),
    limits_of='nash-p',
    overhead_s=Figure(302e-6, 's', 'fitted: value of nash-e'),
    output_s=Figure(26e-6, 's', 'fitted: value of nash-e'),
    int8_macs_per_cycle=Figure(20_790.0, 'MAC/cycle',
                               'scaled: nash-e x (560 / 4 cores) / 80 advertised TOPS'),
    int16_slowdown=_INT16,
    vector_bytes_per_cycle=_vector(1.75),
    ddr_bytes_per_cycle=Figure(33.1, 'bytes/cycle', 'fitted: value of nash-e'),
    sram_bytes=_SRAM,
    note='No latency of nash-p is published: its estimate (one of four cores) is scaled from '
         'nash-e, not calibrated.',
)

MARCHES: dict[str, March] = {march.name: march for march in (NASH_E, NASH_M, NASH_P)}
DEFAULT_MARCH = NASH_E.name


def get_march(name: str) -> March:
    """Look up a march.

    Args:
        name (str): 'nash-e', 'nash-m' or 'nash-p'.

    Raises:
        BpuError: The name is none of them.
    """
    if name not in MARCHES:
        raise BpuError(f'unknown march {name!r}: expected one of {", ".join(sorted(MARCHES))} '
                       '(Journey 6E / RDK S100 is nash-e, Journey 6M / RDK S100P is nash-m, '
                       'Journey 6P / RDK S600 is nash-p)')
    return MARCHES[name]
