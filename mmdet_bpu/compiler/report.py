"""What is known about a compiled model, as one JSON document and one HTML page."""
import json
from collections import defaultdict
from pathlib import Path

from mmdet_bpu.compiler.legality import Finding, summarize
from mmdet_bpu.compiler.published import PUBLISHED_NASH_E, SOURCE
from mmdet_bpu.compiler.report_html import render
from mmdet_bpu.compiler.schedule import live_bytes
from mmdet_bpu.output_folder import write_atomically
from mmdet_bpu.program.container import NOTICE
from mmdet_bpu.program.hbm_file import CompiledNetwork


def build_report(network: CompiledNetwork, findings: list[Finding],
                 quant_report: list[dict] | None = None, title: str = 'model') -> dict:
    """Collect a report.

    Args:
        network (CompiledNetwork): Program, plan and estimate.
        findings (list[Finding]): Legality findings.
        quant_report (list[dict] | None): One row per quantized tensor, shown as given. Defaults
            to None.
        title (str): Name of the model. Defaults to 'model'.

    Returns:
        dict: 'summary' with the vendor's fields, and 'title', 'notice', 'note', 'march',
        'time by op', 'memory', 'legality', 'contract', 'quantization', 'published'. JSON values
        only.
    """
    program, plan = network.program, network.plan
    order = list(range(len(program.instructions)))
    constants = sum(value.type.nbytes for value in program.values.values()
                    if value.data is not None)
    return {
        'title': title,
        'notice': NOTICE,
        'note': network.performance['note'],
        'summary': network.performance['summary'],
        'march': network.performance['march'],
        'time by op': _time_by_op(network.performance['summary']['layer details']),
        'memory': {
            'arena bytes': plan.arena_bytes,
            'peak live bytes': plan.peak_live_bytes,
            'constant bytes': constants,
            'live bytes per step': live_bytes(program, order),
            'sites': [instruction.site for instruction in program.instructions],
        },
        'legality': {
            'counts': summarize(findings),
            'findings': [finding.as_dict() for finding in findings],
        },
        'contract': {
            'inputs': [_tensor(program, name) for name in program.inputs],
            'outputs': [_tensor(program, name) for name in program.outputs],
            'metadata': program.metadata,
        },
        'quantization': quant_report or [],
        'published': {
            'source': SOURCE,
            'models': [{'model': model.name, 'input': 'x'.join(map(str, model.input_shape)),
                        'GOPs': model.gops, 'latency (ms)': model.latency_ms,
                        'DDR (MB)': round(model.ddr_read_mb + model.ddr_write_mb, 2)}
                       for model in PUBLISHED_NASH_E],
        },
    }


def write_report(report: dict, stem) -> tuple[Path, Path]:
    """Write ``<stem>.report.json`` and ``<stem>.report.html``.

    Returns:
        tuple[Path, Path]: The two paths.

    Raises:
        BpuError: The folder cannot be written.
    """
    stem = Path(stem)
    json_path = stem.with_name(stem.name + '.report.json')
    html_path = stem.with_name(stem.name + '.report.html')
    text = json.dumps(report, indent=1, sort_keys=True, ensure_ascii=False, default=str)
    write_atomically(json_path, text.encode())
    write_atomically(html_path, render(report).encode())
    return json_path, html_path


def _tensor(program, name: str) -> dict:
    kind = program.values[name].type
    return {'name': name, 'shape': 'x'.join(map(str, kind.shape)), 'dtype': kind.dtype,
            'scale': kind.scale, 'bytes': kind.nbytes}


def _time_by_op(layers: list[dict]) -> list[dict]:
    times: dict[str, list] = defaultdict(lambda: [0, 0.0])
    for layer in layers:
        times[layer['op']][0] += 1
        times[layer['op']][1] += layer['time (us)']
    rows = [{'op': op, 'count': count, 'time (us)': round(time, 1)}
            for op, (count, time) in times.items()]
    return sorted(rows, key=lambda row: -row['time (us)'])
