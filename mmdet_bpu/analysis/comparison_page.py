"""The comparison as one HTML page: no file, font or script is fetched from anywhere."""
import base64
from html import escape
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from mmdet_bpu.analysis.comparison_charts import histogram, ratio_chart
from mmdet_bpu.analysis.pictures import jpeg_of
from mmdet_bpu.analysis.quant_comparison import worst
from mmdet_bpu.analysis.quant_findings import POOR
from mmdet_bpu.compiler.html_table import cards, table
from mmdet_bpu.compiler.report_page import document

DB, PERCENT = 1, 3  # decimals
SHOWN_WORST = 10
REORDERED = ('Behind a top-k rows may stand in another order, where two scores are nearly equal; '
             'then the outputs differ without any of them being wrong.')
Pictures = Sequence[Tuple[Mapping[str, Any], np.ndarray]]


def render(report: Mapping[str, Any], histograms: Mapping[int, Mapping[str, Any]],
           pictures: Pictures) -> str:
    """The page.

    Args:
        report (Mapping): What the JSON file holds.
        histograms (Mapping[int, Mapping]): Number of a tensor -> its histograms.
        pictures (Sequence): Row of an image, and (height, width, 3) uint8, blue first.
    """
    tensors, title = report['tensors'], f'Quantization of {Path(report["checkpoint"]).name}'
    body = [
        f'<h1>{escape(title)}</h1>', f'<p class="sub">{escape(_subtitle(report))}</p>',
        f'<div class="cards">{cards(_cards(report))}</div>',
        _section('What to look at', 'Tensors that lose by themselves, with the likeliest cause.',
                 table('findings', [_headed(row) for row in report['findings']])),
        _section('SQNR along the network', 'Bars: each tensor alone, rounded from what its quantizer '
                 f'is given; below {POOR:g} dB in another colour. Line: what arrives there with '
                 'everything before it quantized, against the float model.',
                 ratio_chart(tensors, POOR)),
        _section(f'The {SHOWN_WORST} worst tensors', 'By their own SQNR.',
                 table('worst', [_tensor(row) for row in worst(tensors, 'sqnr_db', SHOWN_WORST)])),
        _section('Histograms', 'In LSB, before (filled) and after rounding (outline), on a '
                 'logarithmic axis. Dashed: the ends of the range; the outermost bins hold all '
                 'that lies further out.', _histograms(tensors, histograms)),
        _section('Images that changed most', 'Sum of the scores that were lost or won from float to '
                 'quantized detections.', _pictures(pictures)
                 + table('images', [_headed(row) for row in _by_change(report['images'])])),
        _section('Outputs', 'Quantized against float.',
                 table('outputs', [_headed(row) for row in report['outputs']])
                 + f'<h3>Integers against quantized</h3>{_reordered(report)}'
                 + table('int_outputs', [_headed(row) for row in report['int_outputs']])
                 + _against(report)),
        _section('All tensors', 'In the order they are computed. Click a heading to sort.',
                 table('tensors', [_tensor(row) for row in tensors])),
        _section('Weights and constants', '', table('constants', [_headed(row) for row in
                                                                 report['constants']])),
    ]
    return document(escape(title), '\n'.join(body))


def _section(title: str, text: str, content: str) -> str:
    return f'<h2>{escape(title)}</h2><p class="sub">{escape(text)}</p>{content}'


def _subtitle(report: Mapping[str, Any]) -> str:
    source = report['float_checkpoint'] or 'the same weights without quantizers'
    return (f'{report["checkpoint"]}, stage {report["stage"]}, against {source}; '
            f'{len(report["images"])} images, integers op by op on {report["int_images"]}')


def _cards(report: Mapping[str, Any]) -> List[Tuple[str, str, str]]:
    tensors, images = report['tensors'], report['images']
    compared = [row for row in tensors if row['int_max_lsb'] is not None]
    changed = sum(row['lost'] + row['added'] > 0 for row in images)
    shown = [('Tensors', str(len(tensors)), ', '.join(
        f'{sum(row["dtype"] == dtype for row in tensors)} {dtype}' for dtype in ('int8', 'int16')))]
    shown += [(row['output'], 'exact' if row['sqnr_db'] is None else f'{row["sqnr_db"]:.1f} dB',
               f'largest difference {row["max_difference"]:.3g}') for row in report['outputs'][:4]]
    return shown + [
        ('Images that changed', f'{changed} of {len(images)}', 'a box lost or added, above '
         f'score {report["score_thr"]:g}'),
        ('Integers', f'{max((row["int_max_lsb"] for row in compared), default=0)} LSB',
         'largest difference from the quantized model, op by op'),
    ]


def _tensor(row: Mapping[str, Any]) -> Dict[str, Any]:
    """The columns that a person reads, under short headings."""
    return _rounded({
        '#': row['index'], 'tensor': row['site'], 'op': row['op'], 'dtype': row['dtype'],
        'SQNR (dB)': row['sqnr_db'], 'typical channel (dB)': row['channel_sqnr_db'],
        'accumulated (dB)': row['accumulated_sqnr_db'],
        'cosine': row['accumulated_cosine'], 'below (%)': 100 * row['saturated_below'],
        'above (%)': 100 * row['saturated_above'], 'zeroed (%)': 100 * row['zeroed'],
        'max error (LSB)': row['max_lsb'], 'rms (LSB)': row['rms_lsb'],
        'int differs (%)': None if row['int_differing_share'] is None
        else 100 * row['int_differing_share'], 'int max (LSB)': row['int_max_lsb'],
        'worst image': row['worst_image'], 'scale': row['scale'], 'rule': row['rule']})


HEADINGS = {
    'site': 'tensor', 'try_first': 'try first', 'sqnr_db': 'SQNR (dB)',
    'channel_sqnr_db': 'typical channel (dB)', 'worst_channel_sqnr_db': 'worst channel (dB)',
    'saturated': 'saturated (share)', 'zeroed': 'zeroed (share)', 'index': '#',
    'output_sqnr_db': 'outputs (dB)', 'score_change': 'score change',
    'int_score_change': 'integers: score change', 'int_lost': 'integers: lost',
    'int_added': 'integers: added', 'max_difference': 'largest difference',
    'max_lsb': 'largest (LSB)', 'differing_share': 'differing (share)',
    'worst_image': 'worst image', 'per_channel': 'per channel', 'dead_channels': 'dead channels'}
"""Field of the JSON file -> heading."""


def _headed(row: Mapping[str, Any]) -> Dict[str, Any]:
    return _rounded({HEADINGS.get(name, name): value for name, value in row.items()})


def _rounded(row: Mapping[str, Any]) -> Dict[str, Any]:
    """Numbers as a table shows them; others as they are."""
    shown = {}
    for name, value in row.items():
        if isinstance(value, float) and 'cosine' in name:
            value = round(value, 6)
        elif isinstance(value, float) and 'dB' in name:
            value = round(value, DB)
        elif isinstance(value, float) and name != 'scale':
            value = float(f'{value:.{PERCENT}g}')
        shown[name] = value
    return shown


def _histograms(tensors: Sequence[Mapping[str, Any]],
                histograms: Mapping[int, Mapping[str, Any]]) -> str:
    figures = []
    for number, plain in histograms.items():
        row = tensors[number]
        own = 'exact' if row['sqnr_db'] is None else f'{row["sqnr_db"]:.1f} dB'
        figures.append(f'<figure>{histogram(plain)}<figcaption>{escape(row["site"])} '
                       f'<small>{row["dtype"]}, scale {row["scale"]:.4g}, {own}</small>'
                       '</figcaption></figure>')
    return f'<div class="charts">{"".join(figures)}</div>'


def _by_change(rows: Sequence[Mapping[str, Any]]) -> List[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: -row['score_change'])


def _pictures(pictures: Pictures) -> str:
    figures = []
    for row, picture in pictures:
        caption = (f'{escape(row["image"])} <small>score change {row["score_change"]:.2f}, '
                   f'{row["lost"]} lost, {row["added"]} added</small>')
        figures.append(f'<figure><img src="{data_uri(picture)}" alt="{escape(row["image"])}">'
                       f'<figcaption>{caption}</figcaption></figure>')
    return f'<div class="worst">{"".join(figures)}</div>'


def data_uri(picture: np.ndarray) -> str:
    """A picture as JPEG inside an address."""
    return 'data:image/jpeg;base64,' + base64.b64encode(jpeg_of(picture)).decode()


def _reordered(report: Mapping[str, Any]) -> str:
    if not report['reordered']:
        return ''
    return (f'<p class="sub">{REORDERED} Detections do not depend on the order: see the images.</p>')


def _against(report: Mapping[str, Any]) -> str:
    if report['against_outputs'] is None:
        return ''
    return (f'<h3>{escape(report["against"])} against our integers</h3>'
            + table('against_outputs', [_headed(row) for row in report['against_outputs']]))
