"""Fit the cost model to published latencies and traffic, and predict each row from the others.

    python benchmarks/cost_fit.py

Reads the programs that benchmarks/cost_programs.py wrote, takes seconds. Six constants are fitted:

    on-chip memory           bytes, of a few round sizes the one whose DDR traffic is nearest
    overhead                 s per inference
    overhead of an output    s per output tensor
    MAC rate                 slots/s of the array, idle lanes counted, int16 operands twice
    vector rate              bytes/s, read and written
    DDR rate                 bytes/s, read and written

The last five by non-negative least squares on the relative error of latency. A row that is left out
is left out of both. A row with a term that fewer than two others have stands apart. Prints JSON.
"""
import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, List, Tuple

import numpy as np
from program_shapes import read_shapes
from scipy.optimize import nnls

from mmdet_bpu.compiler.march import NOMINAL_CLOCK_HZ, get_march
from mmdet_bpu.compiler.on_chip import traffic
from mmdet_bpu.compiler.published import PUBLISHED_NASH_E, PublishedModel
from mmdet_bpu.compiler.schedule import schedule
from mmdet_bpu.compiler.unit_work import work_of

FOLDER = Path(__file__).resolve().parent / 'results' / 'published'
MIB = 2**20
SRAM_SIZES = tuple(int(size * MIB) for size in (1, 1.5, 2, 3, 4))
TERMS = ('overhead', 'overhead of an output', 'MAC rate', 'vector rate', 'DDR rate')
UNITS = ('s', 's', 'slots/s', 'bytes/s', 'bytes/s')
SAMPLING = ('bpu.grid_sample', 'bpu.deform_conv2d')


@dataclass(frozen=True)
class Row:
    """A published model and our own counts of it.

    Attributes:
        model (PublishedModel): What is published.
        terms (ndarray): Once, outputs, MAC slots, bytes of the vector unit.
        moved (dict[int, tuple[int, int]]): On-chip memory, bytes -> DDR bytes read and written.
        samples (bool): Whether it samples feature maps, which is assumed and not fitted.
    """
    model: PublishedModel
    terms: np.ndarray
    moved: Dict[int, Tuple[int, int]]
    samples: bool

    def features(self, sram: int) -> np.ndarray:
        """What each constant of :data:`TERMS` is multiplied with."""
        return np.array([*self.terms, sum(self.moved[sram])], float)

    def traffic_ratio(self, sram: int) -> float:
        """Our DDR bytes over the published ones."""
        return sum(self.moved[sram]) / 1e6 / (self.model.ddr_read_mb + self.model.ddr_write_mb)


def count(model: PublishedModel, sizes: Iterable[int] = SRAM_SIZES) -> Row:
    """Our counts of a row, for each size of on-chip memory."""
    program = read_shapes(FOLDER / f'{model.name}.json')
    order = schedule(program)
    slowdown = get_march('nash-e').int16_slowdown.value
    work = [work_of(program, instruction) for instruction in program.instructions]
    slots = sum(each.slots * (slowdown if each.int16 else 1) for each in work)
    moved = {}
    for size in sizes:
        result = traffic(program, order, size)
        moved[size] = sum(result.read), sum(result.written)
    terms = np.array([1, len(program.outputs), slots, sum(each.vector_bytes for each in work)])
    return Row(model, terms, moved,
               any(each.op in SAMPLING for each in program.instructions))


def fit(rows: List[Row]) -> Tuple[int, np.ndarray]:
    """On-chip memory and seconds per unit of each term."""
    sram = min(rows[0].moved, key=lambda size: np.mean(
        [abs(np.log(row.traffic_ratio(size))) for row in rows]))
    relative = np.array([row.features(sram) / (row.model.latency_ms * 1e-3) for row in rows])
    unit = relative.max(axis=0)
    unit[unit == 0] = 1
    solution, _ = nnls(relative / unit, np.ones(len(rows)))
    return sram, solution / unit


def error(row: Row, fitted: Tuple[int, np.ndarray]) -> float:
    """Predicted over published latency, less one."""
    sram, seconds = fitted
    return float(row.features(sram) @ seconds / (row.model.latency_ms * 1e-3) - 1)


def left_out(rows: List[Row], row: Row) -> Tuple[int, np.ndarray]:
    """The fit to all rows but one."""
    return fit([other for other in rows if other is not row])


def stands_apart(rows: List[Row], row: Row) -> bool:
    """Whether it has a term that fewer than two others have; sampling is counted as one."""
    others = [other for other in rows if other is not row]
    return row.samples and sum(other.samples for other in others) < 2


def constants(fitted: Tuple[int, np.ndarray]) -> List[dict]:
    """The six, with units, and as figures of a march."""
    sram, seconds = fitted
    rows = [dict(constant='on-chip memory', value=sram, unit='bytes')]
    for name, unit, each in zip(TERMS, UNITS, seconds):
        value = each if unit == 's' else 1 / each
        per_cycle = {} if unit == 's' else {'per nominal cycle': round(value / NOMINAL_CLOCK_HZ, 2)}
        rows.append(dict(constant=name, value=float(f'{value:.4g}'), unit=unit, **per_cycle))
    return rows


def summary(rows: List[Row]) -> dict:
    """Everything that is printed."""
    fitted = fit(rows)
    table = {}
    for row in rows:
        without = left_out(rows, row)
        sram = fitted[0]
        read, written = row.moved[sram]
        table[row.model.name] = dict(
            published_ms=row.model.latency_ms,
            ms=round(row.model.latency_ms * (1 + error(row, fitted)), 3),
            fitted=f'{error(row, fitted):+.1%}', left_out=f'{error(row, without):+.1%}',
            sram_mib_left_out=without[0] / MIB,
            read_mb=round(read / 1e6, 2), published_read_mb=row.model.ddr_read_mb,
            written_mb=round(written / 1e6, 2), published_written_mb=row.model.ddr_write_mb,
            traffic=f'{row.traffic_ratio(sram) - 1:+.1%}', apart=stands_apart(rows, row))
    shared = [abs(error(row, left_out(rows, row))) for row in rows if not stands_apart(rows, row)]
    return dict(constants=constants(fitted), rows=table,
                left_out=dict(rows=len(shared), mean_absolute=f'{np.mean(shared):.1%}',
                              largest=f'{max(shared):.1%}'))


def main() -> None:
    argparse.ArgumentParser(description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(json.dumps(summary([count(model) for model in PUBLISHED_NASH_E]), indent=1))


if __name__ == '__main__':
    main()
