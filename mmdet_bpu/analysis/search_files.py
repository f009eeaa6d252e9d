"""A search on disk: JSON, CSV, a page with the front, and the rules that a config inherits."""
import glob
from html import escape
from pathlib import Path
from typing import Union

from mmdet_bpu.analysis.search_result import SearchResult
from mmdet_bpu.analysis.tables import write_result
from mmdet_bpu.compiler.html_table import table
from mmdet_bpu.compiler.report_page import document
from mmdet_bpu.output_folder import staged_folder

STEM, QCONFIG_FILE = 'search', 'searched_qconfig.py'
OWN_RULE = 'a rule of the config that was searched'
WIDTH, HEIGHT, LEFT, BELOW = 960, 420, 70, 46  # px of the chart


def write_search(result: SearchResult, out_dir: Union[str, Path], title: str = '') -> None:
    """Write ``search.json``, ``.csv``, ``.html`` and ``searched_qconfig.py``, all or none.

    Args:
        result (SearchResult): What was found.
        out_dir (str | Path): Folder to write.
        title (str): What was searched, for the page.

    Raises:
        BpuError: The folder cannot be written.
    """
    with staged_folder(out_dir) as folder:
        write_result(folder, STEM, result.as_dict(),
                     [point.as_row() for point in result.points], render(result, title))
        (folder / QCONFIG_FILE).write_text(qconfig_text(result), encoding='utf-8')


def qconfig_text(result: SearchResult) -> str:
    """The rules as a config that others inherit."""
    chosen = result.chosen
    lines = [
        '"""Rules found by tools/analyze_quant.py search, for the detector that it was run on.', '',
        f'mAP {chosen.mean_ap:.3f} at {chosen.latency_ms:.3f} ms on {result.march}, by the cost model;',
        f'the template: {result.template.mean_ap:.3f} at {result.template.latency_ms:.3f} ms. A config '
        'takes them over::', '', "    _base_ = ['./my_config.py', './searched_qconfig.py']",
        '    bpu = dict(qconfig={{_base_.searched_qconfig}})', '"""', 'searched_qconfig = [']
    by_site = {glob.escape(name): reason for name, reason in result.reasons.items()}
    for rule in result.rules:
        lines.append(f'    # {by_site.get(rule.get("site"), OWN_RULE)}')
        lines.append(f'    dict({", ".join(f"{name}={value!r}" for name, value in rule.items())}),')
    return '\n'.join([*lines, ']', ''])


def render(result: SearchResult, title: str) -> str:
    """The page."""
    chosen, template = result.chosen, result.template
    cards = (
        ('Chosen', f'{chosen.latency_ms:.3f} ms',
         f'mAP {chosen.mean_ap:.3f}, {chosen.wide} in int16'),
        ('Template', f'{template.latency_ms:.3f} ms',
         f'mAP {template.mean_ap:.3f}, {template.wide} in int16'),
        ('Settings measured', len(result.points), f'seed {result.seed}'),
        ('March', result.march, 'latency by the cost model'),
    )
    body = [
        f'<h1>Dtypes of {escape(title)}</h1>', f'<p class="notice">{escape(result.verdict())}</p>',
        '<div class="cards">', *(
            f'<div class="card"><span>{name}</span><b>{escape(str(value))}</b>'
            f'<small>{escape(detail)}</small></div>' for name, value, detail in cards), '</div>',
        '<h2>mAP over latency</h2><p class="sub">The line joins settings that none is both '
        'cheaper and better than. Point at one for its name.</p>', chart(result),
        '<h2>Settings</h2>', table('settings', [point.as_row() for point in result.points]),
        '<h2>Rules of the chosen one</h2>',
        table('rules', [dict(tensor=name, dtype=chosen.setting[name], reason=reason)
                        for name, reason in result.reasons.items()])]
    return document(f'Dtypes of {escape(title)}', ''.join(body))


def chart(result: SearchResult) -> str:
    """All settings as dots, the front as a line, SVG."""
    latencies = [point.latency_ms for point in result.points]
    scores = [point.mean_ap for point in result.points]
    low, high = min(latencies), max(latencies)
    bottom, top = min(scores), max(scores)

    def place(point) -> tuple:
        x = (point.latency_ms - low) / ((high - low) or 1)
        y = (point.mean_ap - bottom) / ((top - bottom) or 1)
        return LEFT + x * (WIDTH - LEFT - 30), 14 + (1 - y) * (HEIGHT - BELOW - 24)

    line = ' '.join(f'{x:.1f},{y:.1f}' for x, y in map(place, result.front))
    dots = []
    for point in result.points:
        x, y = place(point)
        radius = 8 if point is result.chosen else 5
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" style="fill:var(--accent)">'
                    f'<title>{escape(point.name)}: {point.latency_ms:.4f} ms, mAP '
                    f'{point.mean_ap:.4f}, {point.wide} in int16</title></circle>')
        if point is result.chosen or point is result.template:
            word = 'chosen' if point is result.chosen else 'template'
            dots.append(f'<text x="{x + 10:.1f}" y="{y - 8:.1f}">{word}</text>')
    floor = HEIGHT - BELOW
    axes = (f'<line x1="{LEFT}" x2="{WIDTH}" y1="{floor}" y2="{floor}"/>'
            f'<text x="{LEFT}" y="{floor + 18}">{low:.4f} ms</text>'
            f'<text x="{WIDTH}" y="{floor + 18}" text-anchor="end">{high:.4f} ms</text>'
            f'<text x="{LEFT - 8}" y="{floor - 6}" text-anchor="end">{bottom:.3f}</text>'
            f'<text x="{LEFT - 8}" y="18" text-anchor="end">{top:.3f}</text>')
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="mAP over latency">{axes}'
            f'<polyline points="{line}" style="fill:none;stroke:var(--accent)"/>'
            f'{"".join(dots)}</svg>')
