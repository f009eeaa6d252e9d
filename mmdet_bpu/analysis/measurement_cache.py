"""What an analysis has measured, on the disk as soon as it is known: one that was killed goes on."""
import hashlib
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Iterator, Mapping, Union

from mmdet_bpu.errors import BpuError
from mmdet_bpu.output_folder import write_json


class MeasurementCache(MutableMapping):
    """Name -> plain value, kept in a file for one key.

    Args:
        path (str | Path): The file, which need not exist.
        key (dict): Plain data: all that the values depend on. Values of another key are forgotten.

    Raises:
        BpuError: The file is none of ours.
    """

    def __init__(self, path: Union[str, Path], key: Mapping[str, Any]) -> None:
        self.path, self.key = Path(path), dict(key)
        self.values_by_name = {}
        if not self.path.is_file():
            return
        try:
            content = json.loads(self.path.read_text(encoding='utf-8'))
            if content['key'] == self.key:
                self.values_by_name = dict(content['values'])
        except (ValueError, KeyError, TypeError):
            raise BpuError(f'{self.path} is damaged; remove it to measure again') from None

    def __getitem__(self, name: str) -> Any:
        return self.values_by_name[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.values_by_name[name] = value
        write_json(self.path, dict(key=self.key, values=self.values_by_name))

    def __delitem__(self, name: str) -> None:
        del self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


def digest(content: Any) -> str:
    """Of plain data, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_file(path: Union[str, Path]) -> str:
    """Of a file's bytes."""
    state = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()
