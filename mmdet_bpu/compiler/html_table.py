"""Parts of a report's page that hold facts: tables that sort, and cards."""
from html import escape
from typing import Iterable

# Lists up to this length (shapes) are printed whole, longer ones (scales per channel) as a range.
SHOWN_VALUES = 6


def cards(shown: Iterable[tuple[str, str, str]]) -> str:
    """Name, value and detail of each figure that stands large at the top of a page."""
    return ''.join(f'<div class="card"><span>{escape(name)}</span><b>{escape(value)}</b>'
                   f'<small>{escape(detail)}</small></div>' for name, value, detail in shown)


def table(name: str, rows: list[dict]) -> str:
    """A table of rows, column -> value; a click on a heading sorts it.

    Args:
        name (str): Its id in the page.
        rows (list[dict]): Columns in the order in which they first come. A value is text, a number,
            a bool, a list, or None for an empty cell.
    """
    if not rows:
        return '<p>None.</p>'
    columns = list(dict.fromkeys(column for row in rows for column in row))
    head = ''.join(f'<th{_numeric_class(rows, column)}>{escape(str(column))}</th>'
                   for column in columns)
    body = ''.join(f'<tr>{"".join(_cell(row.get(column)) for column in columns)}</tr>'
                   for row in rows)
    search = (f'<input type="search" placeholder="filter {len(rows)} rows" data-for="{name}">'
              if len(rows) > 12 else '')
    return (f'{search}<div class="scroll"><table id="{name}" class="sortable"><thead><tr>{head}'
            f'</tr></thead><tbody>{body}</tbody></table></div>')


def _numeric_class(rows: list[dict], column: str) -> str:
    values = [row.get(column) for row in rows]
    numbers = [isinstance(value, (int, float)) and not isinstance(value, bool)
               for value in values if value is not None]
    return ' class="n"' if numbers and all(numbers) else ''


def _cell(value) -> str:
    if isinstance(value, bool) or value is None:
        return f'<td>{"" if value is None else value}</td>'
    if isinstance(value, (int, float)):
        shown = f'{value:,}' if isinstance(value, int) else f'{value:.6g}'
        return f'<td class="n" data-v="{value}">{shown}</td>'
    if isinstance(value, (list, tuple)) and len(value) > SHOWN_VALUES:
        value = f'{len(value)} values, {min(value):.4g} to {max(value):.4g}'
    kind = f' class="{value}"' if value in ('error', 'warning', 'note') else ''
    return f'<td{kind}>{escape(str(value))}</td>'
