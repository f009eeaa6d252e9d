"""The report on disk: ``<stem>.report.json`` and ``<stem>.report.html``."""
import json
from pathlib import Path

from mmdet_bpu.compiler.report import Report
from mmdet_bpu.compiler.report_html import render
from mmdet_bpu.output_folder import write_atomically


def write_report(report: Report, stem) -> tuple[Path, Path]:
    """Write a report in both forms.

    Returns:
        tuple[Path, Path]: The two paths.

    Raises:
        BpuError: The folder cannot be written.
    """
    stem = Path(stem)
    json_path = stem.with_name(stem.name + '.report.json')
    html_path = stem.with_name(stem.name + '.report.html')
    text = json.dumps(report.as_dict(), indent=1, sort_keys=True, ensure_ascii=False, default=str)
    write_atomically(json_path, text.encode())
    write_atomically(html_path, render(report).encode())
    return json_path, html_path
