"""Two estimates side by side."""
from dataclasses import dataclass

from mmdet_bpu.compiler.estimate import Estimate


@dataclass(frozen=True)
class Difference:
    """One quantity of two programs; its fields are the columns of a table."""
    quantity: str
    unit: str
    first: float
    second: float

    @property
    def change(self) -> float | None:
        """Second over first, less one; None where there is no first."""
        return self.second / self.first - 1 if self.first else None

    def as_dict(self) -> dict:
        """JSON values."""
        return dict(vars(self), change=self.change)


def compare_estimates(first: Estimate, second: Estimate, cores: int = 1) -> list[Difference]:
    """Quantities of two estimates: sums first, then the time of each operation, the longest first.

    Args:
        first (Estimate), second (Estimate): Of one march.
        cores (int): Of the images per second. Defaults to 1.

    Raises:
        BpuError: The march has not so many cores.
    """
    rows = [Difference(name, unit, read(first), read(second)) for name, unit, read in (
        ('latency', 'ms', lambda each: each.latency_ms),
        (f'throughput of {cores} core{"s" * (cores > 1)}', 'images/s',
         lambda each: each.throughput(cores)),
        ('operations', 'GOPs', lambda each: 2 * each.macs / 1e9),
        ('DDR read', 'MB', lambda each: each.loaded_bytes / 1e6),
        ('DDR written', 'MB', lambda each: each.stored_bytes / 1e6),
        ('constants', 'MB', lambda each: each.constant_bytes / 1e6),
        ('activation memory', 'MB', lambda each: each.arena_bytes / 1e6),
        ('instructions', '', lambda each: len(each.layers)),
        ('fixed overhead', 'us', lambda each: each.overhead_us))]
    times = [{row.op: row.time_us for row in each.by_op()} for each in (first, second)]
    ops = sorted({*times[0], *times[1]},
                 key=lambda op: (-max(each.get(op, 0) for each in times), op))
    return rows + [Difference(op, 'us', *(each.get(op, 0.0) for each in times)) for op in ops]
