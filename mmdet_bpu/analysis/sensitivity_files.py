"""A sensitivity analysis on disk: JSON for programs, CSV for tables, one HTML page for people."""
from html import escape
from pathlib import Path
from typing import List, Union

from mmdet_bpu.analysis.sensitivity_result import DTYPES, Sensitivity, TensorSensitivity
from mmdet_bpu.analysis.tables import write_result
from mmdet_bpu.compiler.html_table import table
from mmdet_bpu.compiler.report_page import document
from mmdet_bpu.output_folder import staged_folder

STEM = 'sensitivity'
BARS = 40
ROW, LABEL, WIDTH = 18, 420, 960  # px of the chart


def write_sensitivity(result: Sensitivity, out_dir: Union[str, Path], title: str = '') -> None:
    """Write ``sensitivity.json``, ``.csv`` and ``.html``, all or none.

    Args:
        result (Sensitivity): What was measured.
        out_dir (str | Path): Folder to write.
        title (str): What was analysed, for the page.

    Raises:
        BpuError: The folder cannot be written.
    """
    with staged_folder(out_dir) as folder:
        write_result(folder, STEM, result.as_dict(), result.rows(), render(result, title))


def render(result: Sensitivity, title: str) -> str:
    """The page."""
    wide = [tensor for tensor in result.tensors if tensor.dtype == 'int16']
    cards = (
        ('Tensors', len(result.tensors), f'{len(wide)} of them in int16'),
        ('Loss in float', f'{result.loss:.4f}', f'labels: {result.labels}'),
        ('Images', result.images, f'{result.first_order_images} to first order'),
        ('Most sensitive', f'{result.tensors[0].score:+.4f}', 'loss, in int8'),
    )
    body = [
        f'<h1>Sensitivity of {escape(title)}</h1>',
        '<p class="sub">One tensor after the other quantized, everything else in float</p>',
        '<div class="cards">', *(
            f'<div class="card"><span>{name}</span><b>{escape(str(value))}</b>'
            f'<small>{escape(detail)}</small></div>' for name, value, detail in cards), '</div>',
        f'<h2>What int8 costs, the first {min(BARS, len(result.tensors))}</h2>',
        '<p class="sub">Change of the loss in int8. Hollow: of it, what is left in int16.</p>',
        bars(result.tensors[:BARS]),
        '<h2>All tensors</h2><p class="sub">Changes of the loss; signal to noise of the output '
        'that suffers most. Click a heading to sort.</p>',
        table('tensors', result.rows()),
    ]
    return document(f'Sensitivity of {escape(title)}', ''.join(body))


def bars(tensors: List[TensorSensitivity]) -> str:
    """One bar per tensor as SVG."""
    top = max((tensor.score for tensor in tensors), default=0) or 1
    drawn = []
    for index, tensor in enumerate(tensors):
        y = index * ROW
        costs = [tensor.costs[dtype].loss_change for dtype in DTYPES if dtype in tensor.costs]
        widths = [max(cost, 0) / top * (WIDTH - LABEL - 80) for cost in costs]
        drawn.append(
            f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(tensor.tensor)}</text>'
            f'<rect x="{LABEL}" y="{y + 3}" width="{max(widths[0], .5):.1f}" height="{ROW - 6}">'
            f'<title>{escape(tensor.tensor)}, {tensor.dtype}: {tensor.rule}</title></rect>'
            f'<text x="{LABEL + widths[0] + 6:.1f}" y="{y + 13}">{costs[0]:+.4f} '
            f'({tensor.dtype})</text>')
        if len(widths) > 1:
            drawn.append(f'<rect x="{LABEL}" y="{y + 7}" width="{widths[1]:.1f}" '
                         f'height="{ROW - 14}" style="fill:var(--bg)"/>')
    return (f'<svg viewBox="0 0 {WIDTH} {ROW * len(tensors) + 4}" role="img" '
            f'aria-label="change of the loss by tensor">{"".join(drawn)}</svg>')
