"""A program's graph as SVG inside the page: bands one below the other, instructions inside by depth.

The picture is whole without any script, all bands open. ``report_graph_page.SCRIPT`` closes and opens
bands: it moves what is below, and draws the links between bands anew, by the same rule as here.
"""
from dataclasses import dataclass
from html import escape

from mmdet_bpu.compiler.estimate import Estimate, LayerEstimate
from mmdet_bpu.compiler.program_graph import Band, ProgramGraph
from mmdet_bpu.compiler.report_graph_page import SHADES
from mmdet_bpu.program.program import Program

NODE_WIDTH, NODE_HEIGHT, COLUMN, ROW = 168, 22, 178, 34  # px, as all lengths here
GUTTER, HEAD, GAP, PAD = 96, 28, 14, 10
NEAREST_BOW, BOW_PER_BAND, LEAST_LEFT = 12, 5, 6  # of links in the gutter
INSIDE_BOW = 40
WIDEST = 8  # instructions side by side; deeper ones go on below
LETTERS = 24  # of a name in a node


@dataclass(frozen=True)
class Layout:
    """Where the instructions of a band stand.

    Attributes:
        places (dict[int, tuple[float, float]]): Step -> upper left corner, from the band's.
        width (float): Of all columns.
        height (float): Of all rows.
    """
    places: dict[int, tuple[float, float]]
    width: float
    height: float


def graph_svg(program: Program, estimate: Estimate) -> str:
    """The graph of a program with its layers' times, inside an area that scrolls."""
    graph = ProgramGraph(program)
    if not graph.bands:
        return '<p>No instructions.</p>'
    layouts = [layout(graph, band) for band in graph.bands]
    inner = max([each.width for each in layouts])
    tops, y = [], PAD
    for each in layouts:
        tops.append(y)
        y += HEAD + each.height + GAP
    width = GUTTER + inner + 2 * PAD
    links = [_link(a, b, tops, layouts, width) for a, b in graph.band_edges()]
    longest = max((layer.time_us for layer in estimate.layers), default=0) or 1
    bands = [_band(graph, band, each, top, width, estimate, program, longest)
             for band, each, top in zip(graph.bands, layouts, tops)]
    return (f'<div class="graphview" tabindex="0" role="region" aria-label="graph, scrolls">'
            f'<svg id="graph" class="graph" width="{width:g}" height="{y:g}" '
            f'viewBox="0 0 {width:g} {y:g}" data-width="{width:g}" data-head="{HEAD}" '
            f'data-gap="{GAP}" data-pad="{PAD}" data-gutter="{GUTTER}" role="group" '
            f'aria-label="graph of {len(estimate.layers)} instructions in {len(graph.bands)} parts">'
            f'{"".join(links)}{"".join(bands)}</svg></div>')


def layout(graph: ProgramGraph, band: Band) -> Layout:
    """Rows by depth; within a row in the order of what is read, so that few edges cross."""
    rows: dict[int, list[int]] = {}
    for step, depth in zip(band.steps, graph.depths(band)):
        rows.setdefault(depth, []).append(step)
    sources: dict[int, list[int]] = {}
    for source, reader in graph.edges:
        if source in band.steps and reader in band.steps:
            sources.setdefault(reader, []).append(source)
    widest = min(max(map(len, rows.values())), WIDEST)
    places: dict[int, tuple[float, float]] = {}
    row = 0
    for _, steps in sorted(rows.items()):
        before = {step: [places[s][0] for s in sources.get(step, [])] for step in steps}
        steps = sorted(steps, key=lambda step: (
            sum(before[step]) / len(before[step]) if before[step] else 0, step))
        for start in range(0, len(steps), WIDEST):
            shown = steps[start:start + WIDEST]
            left = (widest - len(shown)) * COLUMN / 2
            for place, step in enumerate(shown):
                places[step] = left + place * COLUMN, row * ROW
            row += 1
    return Layout(places, widest * COLUMN - (COLUMN - NODE_WIDTH), row * ROW)


def _link(a: int, b: int, tops: list[float], layouts: list[Layout], width: float) -> str:
    """Between two bands: straight between neighbours, else an arc in the gutter."""
    if b == a + 1:
        x = (GUTTER + width) / 2
        path = f'M{x:g} {tops[a] + HEAD + layouts[a].height:g}V{tops[b]:g}'
    else:
        x = max(GUTTER - NEAREST_BOW - BOW_PER_BAND * (b - a), LEAST_LEFT)
        start, end = tops[a] + HEAD / 2, tops[b] + HEAD / 2
        path = f'M{GUTTER} {start:g}C{x:g} {start:g} {x:g} {end:g} {GUTTER} {end:g}'
    return f'<path class="link" data-from="{a}" data-to="{b}" d="{path}"/>'


def _band(graph: ProgramGraph, band: Band, where: Layout, top: float, width: float,
          estimate: Estimate, program: Program, longest: float) -> str:
    layers = [estimate.layers[step] for step in band.steps]
    time = sum(layer.time_us for layer in layers)
    told = (f'{band.count} instruction{"s" * (band.count > 1)}, {time:,.1f} us, '
            f'{100 * time / estimate.latency_us:.1f} %')
    frame = f'x="{GUTTER}" width="{width - GUTTER - PAD:g}"'
    left = (width - GUTTER - PAD - where.width) / 2 + GUTTER
    edges = ''.join(_edge(where.places, a, b) for a, b in graph.edges
                    if a in where.places and b in where.places)
    nodes = ''.join(_node(step, where.places[step], layer, program, longest)
                    for step, layer in zip(band.steps, layers))
    name = escape(band.name)
    return (f'<g class="band" data-inner="{where.height:g}" transform="translate(0,{top:g})">'
            f'<rect class="frame" {frame} y="0" height="{HEAD + where.height:g}" rx="6"/>'
            f'<g class="head" role="button" tabindex="0" aria-expanded="true" '
            f'aria-label="{name}, {told}"><rect class="title" {frame} y="0" height="{HEAD}" rx="6"/>'
            f'<text x="{GUTTER + 10}" y="18"><tspan class="name">{name}</tspan>'
            f'<tspan dx="10">{told}</tspan></text></g>'
            f'<g class="inside" transform="translate({left:g},{HEAD + 4})">{edges}{nodes}</g></g>')


def _edge(places: dict[int, tuple[float, float]], source: int, reader: int) -> str:
    """From one node down to another; one that passes rows bows out."""
    (x1, y1), (x2, y2) = places[source], places[reader]
    x1, x2, y1 = x1 + NODE_WIDTH / 2, x2 + NODE_WIDTH / 2, y1 + NODE_HEIGHT
    if y2 - y1 < ROW:
        return f'<path class="edge" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>'
    side = max(x1, x2) + NODE_WIDTH / 2 + INSIDE_BOW
    return f'<path class="edge" d="M{x1:g} {y1:g}C{side:g} {y1 + 8:g} {side:g} {y2 - 8:g} {x2:g} {y2:g}"/>'


def _node(step: int, place: tuple[float, float], layer: LayerEstimate, program: Program,
          longest: float) -> str:
    x, y = place
    op = layer.op.rpartition('.')[2]
    name = f'{op} {layer.site.rpartition("/")[0].rpartition(".")[2]}'.strip()
    name = name if len(name) <= LETTERS else f'{name[:LETTERS - 1]}\u2026'
    instruction = program.instructions[step]
    read = ', '.join(_typed(program, value) for value in instruction.inputs)
    told = (f'#{step} {layer.site or "(moves data)"}\n{layer.op}: {read} to {layer.output}\n'
            f'{layer.time_us:,.2f} us, bound by {layer.bound_by}; {layer.macs:,} MACs, '
            f'DDR {layer.bytes_read:,} B read, {layer.bytes_written:,} B written')
    shade = round((SHADES - 1) * (layer.time_us / longest) ** 0.5)
    return (f'<g class="op"><title>{escape(told)}</title><rect x="{x:g}" y="{y:g}" '
            f'width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="3" class="shade{shade}"/>'
            f'<text x="{x + 6:g}" y="{y + 15:g}">{escape(name)}</text></g>')


def _typed(program: Program, value: str) -> str:
    kind = program.values[value].type
    constant = 'constant ' if program.values[value].data is not None else ''
    return f'{constant}{"x".join(map(str, kind.shape))} {kind.dtype}'
