"""Results as files: JSON and CSV that other programs read, and a page for people."""
import csv
import io
import json
from pathlib import Path
from typing import Any, Dict, Sequence


def write_result(folder: Path, stem: str, content: Any, rows: Sequence[Dict[str, Any]],
                 page: str) -> None:
    """Write ``STEM.json``, ``.csv`` and ``.html``.

    Args:
        folder (Path): Is there.
        stem (str): Of the files' names.
        content (Any): Plain data; what is not finite is a program error.
        rows (Sequence[dict]): Of the CSV, with the same columns.
        page (str): HTML.
    """
    (folder / f'{stem}.json').write_text(
        json.dumps(content, indent=1, allow_nan=False) + '\n', encoding='utf-8')
    (folder / f'{stem}.csv').write_text(csv_text(rows), encoding='utf-8')
    (folder / f'{stem}.html').write_text(page, encoding='utf-8')


def csv_text(rows: Sequence[Dict[str, Any]]) -> str:
    """Rows of the same columns; a list is written with ``x`` between its numbers."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator='\n')
    writer.writeheader()
    for row in rows:
        writer.writerow({name: 'x'.join(map(str, value)) if isinstance(value, list) else value
                         for name, value in row.items()})
    return text.getvalue()
