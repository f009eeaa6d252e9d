"""Rows as text that other programs read."""
import csv
import io
from typing import Any, Dict, Sequence


def csv_text(rows: Sequence[Dict[str, Any]]) -> str:
    """Rows of the same columns; a list is written with ``x`` between its numbers."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator='\n')
    writer.writeheader()
    for row in rows:
        writer.writerow({name: 'x'.join(map(str, value)) if isinstance(value, list) else value
                         for name, value in row.items()})
    return text.getvalue()
