"""Pictures of a comparison as SVG: ratios along the network, histograms of a tensor."""
import math
from html import escape
from typing import Any, List, Mapping, Sequence

from mmdet_bpu.analysis.level_histograms import BINS_BEYOND, bounds

WIDTH, HEIGHT, LEFT, TOP = 960, 200, 52, 10
LOWEST, HIGHEST, GRID_STEP = 0, 100, 20  # dB that are drawn
SMALL_WIDTH, SMALL_HEIGHT = 460, 130


def ratio_chart(rows: Sequence[Mapping[str, Any]], poor: float) -> str:
    """Bars of each tensor's own SQNR in the graph's order, and a line of the accumulated one.

    Args:
        rows (Sequence[Mapping]): Of tensors.
        poor (float): dB below which a bar is drawn in another colour.
    """
    if not rows:
        return '<p>No tensors.</p>'
    width = (WIDTH - LEFT) / len(rows)
    parts: List[str] = []
    for value in range(LOWEST, HIGHEST + 1, GRID_STEP):
        y = _height(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value} dB</text>')
    previous, points = None, []
    for number, row in enumerate(rows):
        x = LEFT + number * width
        if row['part'] != previous:
            previous = row['part']
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + HEIGHT}"/>')
            if sum(other['part'] == previous for other in rows) * width > 50:
                parts.append(f'<text x="{x + 3:.1f}" y="{TOP + HEIGHT + 16}">'
                             f'{escape(previous)}</text>')
        ratio = row['sqnr_db']
        if ratio is not None:
            y = _height(ratio)
            kind = ' class="poor"' if ratio < poor else ''
            parts.append(
                f'<rect{kind} x="{x:.2f}" y="{y:.2f}" width="{max(width - .2, .4):.2f}" '
                f'height="{max(TOP + HEIGHT - y, .5):.2f}"><title>{escape(row["site"])} '
                f'({row["dtype"]}): {_db(ratio)} by itself, '
                f'{_db(row["accumulated_sqnr_db"])} accumulated</title></rect>')
        if row['accumulated_sqnr_db'] is not None:
            points.append(f'{x + width / 2:.2f},{_height(row["accumulated_sqnr_db"]):.2f}')
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT + TOP + 26}" role="img" '
            f'aria-label="SQNR of each tensor">{"".join(parts)}'
            f'<polyline class="lines" points="{" ".join(points)}"/></svg>')


def histogram(plain: Mapping[str, Any]) -> str:
    """Counts before (filled) and after (outline) rounding, on a logarithmic axis."""
    top = math.log1p(max([1, *plain['before'], *plain['after']]))
    edges = bounds(plain)
    width = SMALL_WIDTH / len(plain['before'])

    def heights(counts: Sequence[int]) -> List[float]:
        return [SMALL_HEIGHT * (1 - math.log1p(count) / top) for count in counts]

    bars = ''.join(
        f'<rect x="{i * width:.2f}" y="{y:.2f}" width="{width:.2f}" height="{SMALL_HEIGHT - y:.2f}">'
        f'<title>{edges[i]:g} to {edges[i + 1]:g}: {plain["before"][i]:,} before, '
        f'{plain["after"][i]:,} after</title></rect>'
        for i, y in enumerate(heights(plain['before'])) if plain['before'][i])
    steps = ' '.join(f'{i * width:.2f},{y:.2f} {(i + 1) * width:.2f},{y:.2f}'
                     for i, y in enumerate(heights(plain['after'])))
    inside = [BINS_BEYOND * width, SMALL_WIDTH - BINS_BEYOND * width]
    ends = ''.join(f'<line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{SMALL_HEIGHT}"/>'
                   for x in inside)
    low = plain['start'] + BINS_BEYOND * plain['width'] + 0.5
    high = plain['start'] + (len(plain['before']) - BINS_BEYOND) * plain['width'] - 0.5
    names = ''.join(f'<text x="{x:.1f}" y="{SMALL_HEIGHT + 14}" text-anchor="middle">{v:g}</text>'
                    for x, v in ((inside[0], low), (SMALL_WIDTH / 2, 0), (inside[1], high)))
    return (f'<svg viewBox="0 0 {SMALL_WIDTH} {SMALL_HEIGHT + 18}" role="img" '
            f'aria-label="histogram in LSB">{bars}<polyline class="after" points="{steps}"/>'
            f'{ends}{names}</svg>')


def _height(ratio: float) -> float:
    share = (min(max(ratio, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)
    return TOP + HEIGHT * (1 - share)


def _db(ratio: Any) -> str:
    return 'exact' if ratio is None else f'{ratio:.1f} dB'
