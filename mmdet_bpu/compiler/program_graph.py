"""The graph of a program as a person reads it: its instructions in bands of one part of the model each.

A band is a run of neighbouring instructions whose sites begin alike. Instructions run in an order in
which each reads only what stands before it, so all edges between bands lead forwards, whatever the
sites are called.
"""
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from mmdet_bpu.program.program import Program

BANDS = 10
LEAST_LIMIT, MOST_LIMIT = 12, 112
"""A band is cut where it has more instructions than a ``BANDS``-th of all, within these limits."""
SMALL = 3
"""Neighbours of one part that are together below a limit's ``SMALL``-th are one band."""


@dataclass(frozen=True)
class Band:
    """A run of instructions.

    Attributes:
        name (str): What their sites begin with.
        first (int): Its first instruction.
        count (int): How many there are.
    """
    name: str
    first: int
    count: int

    @property
    def steps(self) -> range:
        """Its instructions."""
        return range(self.first, self.first + self.count)


class ProgramGraph:
    """Edges and bands of a program.

    Args:
        program (Program): In the order it runs.

    Attributes:
        edges (list[tuple[int, int]]): Instruction that makes a value -> one that reads it; each pair once.
        bands (list[Band]): In order; every instruction is in one.
    """

    def __init__(self, program: Program) -> None:
        makes = {name: step for step, instruction in enumerate(program.instructions)
                 for name in instruction.outputs}
        self.edges = sorted({(makes[name], step)
                             for step, instruction in enumerate(program.instructions)
                             for name in instruction.inputs if name in makes})
        self.bands = bands_of([instruction.site for instruction in program.instructions])

    @cached_property
    def band_of(self) -> list[int]:
        """Number of each instruction's band."""
        return [number for number, band in enumerate(self.bands) for _ in band.steps]

    def band_edges(self) -> list[tuple[int, int]]:
        """Band that makes a value -> another band that reads it; each pair once."""
        pairs = {(self.band_of[a], self.band_of[b]) for a, b in self.edges}
        return sorted(pair for pair in pairs if pair[0] != pair[1])

    def depths(self, band: Band) -> list[int]:
        """Of each instruction of a band, the longest way to it inside the band, in edges."""
        depth = dict.fromkeys(band.steps, 0)
        for source, reader in self.edges:  # sorted by source: its own depth is known by then
            if source in depth and reader in depth:
                depth[reader] = max(depth[reader], depth[source] + 1)
        return list(depth.values())


def bands_of(sites: list[str]) -> list[Band]:
    """Cut a program where its sites begin otherwise.

    Args:
        sites (list[str]): Of each instruction, such as ``backbone.layer1.0.conv1/conv2d.0``; an empty one
            belongs to the site before it.
    """
    parts, last = [], ''
    for site in sites:
        last = site or last
        parts.append(last.partition('/')[0].split('.'))
    limit = min(max(len(sites) // BANDS, LEAST_LIMIT), MOST_LIMIT)
    return _cut(parts, 0, len(parts), 0, limit)


def _cut(parts: list[list[str]], first: int, end: int, level: int, limit: int) -> list[Band]:
    """Bands of the instructions from ``first`` to ``end``, which agree in ``level`` parts."""
    found: list[Band] = []
    for _, run in groupby(range(first, end), lambda step: parts[step][:level + 1]):
        steps = list(run)
        deepest = max(len(parts[step]) for step in steps)
        if len(steps) > limit and level + 1 < deepest:
            found += _cut(parts, steps[0], steps[-1] + 1, level + 1, limit)
        else:
            found.append(Band('.'.join(parts[steps[0]][:level + 1]) or 'network', steps[0],
                              len(steps)))
    return _joined(found, limit // SMALL) if level else found


def _joined(bands: list[Band], limit: int) -> list[Band]:
    """Neighbours that are small together, as one."""
    found: list[Band] = []
    for band in bands:
        if found and found[-1].count + band.count <= limit:
            before = found.pop()
            band = Band(_both(before.name, band.name), before.first, before.count + band.count)
        found.append(band)
    return found


def _both(first: str, second: str) -> str:
    """'decoder.1: norms to ffn' of 'decoder.1.norms' and 'decoder.1.ffn'."""
    stem, _, name = first.partition(': ')
    start = f'{stem}.{name.partition(" to ")[0]}' if name else first
    same = 0
    for one, other in zip(start.split('.'), second.split('.')):
        if one != other:
            break
        same += 1
    common = '.'.join(second.split('.')[:same])
    ends = ['.'.join(each.split('.')[same:]) for each in (start, second)]
    return f'{common}: {ends[0]} to {ends[1]}' if common and all(ends) else common or (
        f'{start} to {second}')
