"""Kept cells of the accuracy benchmark, and the table of them."""
import json
import statistics
from pathlib import Path
from typing import Dict, Iterable, List

from accuracy_methods import CONTROL, METHODS, TRAINED, WITHOUT_LABELS
from accuracy_sets import DIGITS, MODELS

from mmdet_bpu.errors import BpuError

FIELDS = 'set', 'model', 'seed', 'method', 'metrics', 'inputs'


def read_cell(file: Path) -> dict:
    """A cell's file.

    Raises:
        BpuError: It is none.
    """
    try:
        cell = json.loads(file.read_text(encoding='utf-8'))
    except ValueError as error:
        raise BpuError(f'{file} is no cell: {error}; remove it to make the cell again') from None
    missing = [name for name in FIELDS if not isinstance(cell, dict) or name not in cell]
    if missing or cell['method'] not in METHODS or cell['model'] not in MODELS:
        found = f'lacks {", ".join(missing)}' if missing else \
            f'is of method {cell["method"]!r} and model {cell["model"]!r}, which are not known'
        raise BpuError(f'{file} is no cell: it {found}; remove it')
    return cell


class Results:
    """Cells, by what they are of.

    Args:
        cells (Iterable[dict]): As written.
    """

    def __init__(self, cells: Iterable[dict]) -> None:
        self.by_key: Dict[tuple, Dict[int, dict]] = {}
        for cell in cells:
            key = cell['set'], cell['model'], cell['method']
            self.by_key.setdefault(key, {})[cell['seed']] = cell

    @classmethod
    def of(cls, folder: Path) -> 'Results':
        """All cells in a folder."""
        return cls(map(read_cell, sorted(folder.glob('*.json'))))

    @property
    def columns(self) -> List[tuple]:
        """(set, model) of all cells."""
        found = {key[:2] for key in self.by_key}
        return sorted(found, key=lambda column: (column[0] != DIGITS, list(MODELS).index(column[1])))

    def float_maps(self, column: tuple) -> Dict[int, float]:
        """Seed -> mAP of the float model."""
        return {seed: cell['metrics']['float']['mAP'] for key, cells in self.by_key.items()
                if key[:2] == column for seed, cell in cells.items()}

    def maps(self, column: tuple, method: str) -> Dict[int, float]:
        """Seed -> mAP of the integers, or of the control."""
        stage = 'control' if METHODS[method].start == CONTROL else 'int'
        return {seed: cell['metrics'][stage]['mAP']
                for seed, cell in self.by_key.get((*column, method), {}).items()}

    def shares(self, column: tuple, method: str) -> Dict[int, float]:
        """Seed -> share of the float model's mAP, or of the control's."""
        trained = METHODS[method].start == TRAINED and method not in WITHOUT_LABELS
        whole = self.maps(column, 'control') if trained else self.float_maps(column)
        return {seed: found / whole[seed] for seed, found in self.maps(column, method).items()
                if whole.get(seed)}

    def table(self) -> str:
        """Markdown: a row a method, a column a set and model."""
        head = ' | '.join(f'{name}, {model}' for name, model in self.columns)
        lines = [f'| method | {head} |', '|---' * (len(self.columns) + 1) + '|']
        texts = [_summary(self.float_maps(column).values()) for column in self.columns]
        lines.append(f'| float | {" | ".join(texts)} |')
        methods = [name for name in METHODS if any(key[2] == name for key in self.by_key)]
        for method in methods:
            texts = [self._text(column, method) for column in self.columns]
            lines.append(f'| {method} | {" | ".join(texts)} |')
        return '\n'.join(lines)

    def _text(self, column: tuple, method: str) -> str:
        found, shares = self.maps(column, method), self.shares(column, method)
        share = f' ({statistics.mean(shares.values()):.3f})' if shares else ''
        return _summary(found.values()) + share


def _summary(values: Iterable[float]) -> str:
    values = list(values)
    spread = f' ± {statistics.stdev(values):.3f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.3f}{spread}' if values else ''
