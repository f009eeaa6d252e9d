"""The report as one HTML page: no file, font or script is fetched from anywhere."""
import base64
import json
import re
from dataclasses import asdict
from html import escape

from mmdet_bpu.compiler.estimate import Estimate, OpTime
from mmdet_bpu.compiler.graph_svg import graph_svg
from mmdet_bpu.compiler.html_table import cards, table
from mmdet_bpu.compiler.legality import Finding
from mmdet_bpu.compiler.published import SOURCE
from mmdet_bpu.compiler.published_errors import likely_range, published_errors
from mmdet_bpu.compiler.report import Report, ReportPictures
from mmdet_bpu.compiler.report_page import PAGE

CHART_WIDTH, CHART_HEIGHT, CHART_LEFT = 960, 180, 64
# One rectangle per step up to here; longer programs show the largest value of each bin.
CHART_BINS = 480
MARK = re.compile('<!--(\\w+)-->')


def render(report: Report) -> str:
    """Render a report as a complete HTML document."""
    march = report.estimate.march
    parts = {
        'title': escape(report.title),
        'march': escape(f'{march.name} ({", ".join(march.boards)})'),
        'notice': escape(report.notice),
        'note': escape(' '.join(filter(None, (report.note, march.note)))),
        'cards': _cards(report),
        'input_stage': _input_stage(report),
        'pictures': _pictures(report.pictures),
        'graph': graph_svg(report.network.program, report.estimate),
        'ops': _op_bars(report.estimate.by_op()),
        'timeline': _timeline(report),
        'findings': _findings(report.findings),
        'layers': table('layers', _layer_rows(report.estimate)),
        'contract': _contract(report),
        'quantization': _quantization(report.quantization),
        'figures': table('figures', [{'figure': name, **asdict(figure)}
                                     for name, figure in march.figures().items()]),
        'published': table('published', report.published_rows()),
        'published_source': escape(SOURCE),
    }
    return MARK.sub(lambda mark: parts[mark[1]], PAGE)


def human_bytes(nbytes: float) -> str:
    """'1.5 MB', units of 1000."""
    for unit in ('B', 'kB', 'MB'):
        if nbytes < 1000:
            return f'{nbytes:.0f} {unit}' if unit == 'B' else f'{nbytes:.3g} {unit}'
        nbytes /= 1000
    return f'{nbytes:.4g} GB'


def _cards(report: Report) -> str:
    estimate, counts = report.estimate, report.finding_counts()
    least, most = likely_range(estimate.latency_ms, published_errors())
    shown = (
        ('Latency, one core', f'{estimate.latency_ms:.3f} ms',
         f'estimate; {least:.3g} to {most:.3g} ms if off like the worst published row'),
        ('Throughput', f'{estimate.images_per_second:.1f} FPS', 'estimate, one core'),
        ('Operations', f'{2 * estimate.macs / 1e9:.2f} GOPs', '2 per multiply-accumulate'),
        ('DDR per run', f'{estimate.ddr_megabytes:.1f} MB',
         f'read {human_bytes(estimate.loaded_bytes)}, '
         f'written {human_bytes(estimate.stored_bytes)}'),
        ('Activation memory', human_bytes(estimate.arena_bytes),
         f'peak of live data {human_bytes(report.network.plan.peak_live_bytes)}'),
        ('Constants', human_bytes(estimate.constant_bytes),
         f'{len(estimate.layers)} instructions'),
        ('Legality', f'{counts["error"]} errors', f'{counts["warning"]} warnings, '
         f'{counts["note"]} notes'),
    )
    return cards(shown)


def _op_bars(rows: list[OpTime]) -> str:
    total = sum(row.time_us for row in rows) or 1
    bars = []
    for row in rows:
        percent = 100 * row.time_us / total
        bars.append(f'<tr><td>{escape(row.op)}</td><td class="n">{row.count}</td>'
                    f'<td class="bar"><i style="width:{percent:.2f}%"></i></td>'
                    f'<td class="n">{row.time_us:,.1f} us</td>'
                    f'<td class="n">{percent:.1f} %</td></tr>')
    return f'<table class="plain">{"".join(bars)}</table>'


def _timeline(report: Report) -> str:
    live, sites = report.live_bytes(), report.sites
    if not live:
        return '<p>No instructions.</p>'
    size = -(-len(live) // CHART_BINS)
    bins = [max(range(start, min(start + size, len(live))), key=live.__getitem__)
            for start in range(0, len(live), size)]
    top = max(report.estimate.arena_bytes, 1)
    width = (CHART_WIDTH - CHART_LEFT) / len(bins)
    bars = []
    for index, step in enumerate(bins):
        height = live[step] / top * CHART_HEIGHT
        left, above = CHART_LEFT + index * width, 10 + CHART_HEIGHT - height
        bars.append(f'<rect x="{left:.2f}" y="{above:.2f}" width="{max(width - .15, .3):.2f}" '
                    f'height="{height:.2f}"><title>step {step}: {human_bytes(live[step])} live, '
                    f'{escape(sites[step])}</title></rect>')
    grid = ''.join(
        f'<line x1="{CHART_LEFT}" x2="{CHART_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{CHART_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{human_bytes(value)}</text>'
        for value, y in ((top * part, 10 + CHART_HEIGHT * (1 - part)) for part in (0, .5, 1)))
    return (f'<svg viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT + 36}" role="img" '
            f'aria-label="live activation bytes per step">{grid}{"".join(bars)}'
            f'<text x="{CHART_LEFT}" y="{CHART_HEIGHT + 30}">step 0</text>'
            f'<text x="{CHART_WIDTH}" y="{CHART_HEIGHT + 30}" text-anchor="end">'
            f'step {len(live) - 1}</text></svg>')


def _findings(findings: list[Finding]) -> str:
    if not findings:
        return '<p>Every op is within the published limits.</p>'
    return table('findings', [finding.as_dict() for finding in findings])


def _layer_rows(estimate: Estimate) -> list[dict]:
    """Column -> value, layer by layer."""
    errors = published_errors()
    rows = []
    for index, layer in enumerate(estimate.layers):
        least, most = likely_range(layer.time_us, errors)
        rows.append({
            '#': index, 'layer': layer.site, 'op': layer.op, 'output': layer.output,
            'MACs': layer.macs, 'read (B)': layer.bytes_read, 'written (B)': layer.bytes_written,
            'compute cycles': round(layer.compute_cycles), 'DDR cycles': round(layer.ddr_cycles),
            'bound by': layer.bound_by, 'time (us)': round(layer.time_us, 3),
            'least (us)': round(least, 3), 'most (us)': round(most, 3),
            'share (%)': round(100 * estimate.share(layer), 2)})
    return rows


def _input_stage(report: Report) -> str:
    """The network's input, and what makes it of a picture."""
    image = table('image', [asdict(row) for row in report.inputs()])
    stage, rows = report.input_in_words(), report.input_stage()
    words = f'<p class="sub">{escape(stage)}.</p>' if stage else ''
    return words + image + (table('input_stage', rows) if rows else
                    '<p>The program has no deployment contract.</p>')


def _pictures(shown: ReportPictures) -> str:
    figures = []
    for each in shown.pictures:
        data = base64.b64encode(each.jpeg).decode()
        figures.append(f'<figure><img src="data:image/jpeg;base64,{data}" alt="{escape(each.name)}">'
                       f'<figcaption>{escape(each.name)} <small>{escape(each.caption)}</small>'
                       '</figcaption></figure>')
    return (f'<p class="sub">{escape(shown.note)}</p>'
            + (f'<div class="worst">{"".join(figures)}</div>' if figures else ''))


def _contract(report: Report) -> str:
    metadata = json.dumps(report.network.program.metadata, indent=2, sort_keys=True,
                          ensure_ascii=False, default=str)
    inputs, outputs = ([asdict(row) for row in rows]
                       for rows in (report.inputs(), report.outputs()))
    return (f'<h3>Inputs</h3>{table("inputs", inputs)}'
            f'<h3>Outputs</h3>{table("outputs", outputs)}'
            f'<h3>Before and after the model</h3><pre>{escape(metadata)}</pre>')


def _quantization(rows: list[dict]) -> str:
    if not rows:
        return '<p>No quantization report was given to the compiler.</p>'
    return table('quantization', rows)
