"""The nesting of a head's outputs as plain data.

A tree has the form of what the head returns, with names in the place of tensors: a name (a leaf), a
list of trees, or None where the head returns None::

    (([t, t], [t, t]))        a RetinaNet of two levels
    [['cls_scores.0', 'cls_scores.1'], ['bbox_preds.0', 'bbox_preds.1']]

It goes through JSON unchanged: an artefact carries it in its metadata.
"""
from typing import Any, List, Mapping, Sequence, TypeVar, Union

from torch import Tensor

from mmdet_bpu.errors import BpuError

Tree = Union[str, None, List['Tree']]
T = TypeVar('T')

SINGLE = 'outputs'  # the name of an output that is one tensor, not a sequence of outputs
DEEPEST = 8  # of a tree that a file may hold; stock heads nest three deep


def tensors_of(outputs: Any) -> List[Tensor]:
    """The tensors of nested tuples and lists in order.

    Raises:
        BpuError: There is something else than tensors, tuples, lists and None.
    """
    if isinstance(outputs, Tensor):
        return [outputs]
    if outputs is None:
        return []
    if isinstance(outputs, (tuple, list)):
        return [tensor for part in outputs for tensor in tensors_of(part)]
    raise BpuError('expected a head that returns tensors in nested tuples and lists, found a '
                   f'{type(outputs).__name__} in its outputs')


def name_tensors(outputs: Any, names: Sequence[str] = ()) -> Tree:
    """The tree of a head's outputs.

    Args:
        outputs (Any): Tensors in nested tuples and lists.
        names (Sequence[str]): Of the outermost parts, in order; parts without one are called
            ``output_2`` by their position. Defaults to none.

    Returns:
        Tree: A part that is a tensor has its part's name; tensors inside it have their positions
        appended (``bbox_preds.0``).

    Raises:
        BpuError: As for :func:`tensors_of`.
    """
    tensors_of(outputs)
    if not isinstance(outputs, (tuple, list)):
        return _named(outputs, SINGLE)
    return [_named(part, names[index] if index < len(names) else f'output_{index}')
            for index, part in enumerate(outputs)]


def _named(part: Any, name: str) -> Tree:
    if part is None:
        return None
    if isinstance(part, Tensor):
        return name
    return [_named(inner, f'{name}.{index}') for index, inner in enumerate(part)]


def leaves(tree: Tree) -> List[str]:
    """Names in the order of the head's tensors."""
    if isinstance(tree, str):
        return [tree]
    return [] if tree is None else [name for part in tree for name in leaves(part)]


def fill(tree: Tree, values: Mapping[str, T]) -> Any:
    """The tree with ``values[name]`` in the place of every name: nested lists."""
    if isinstance(tree, str):
        return values[tree]
    return None if tree is None else [fill(part, values) for part in tree]


def read_tree(data: Any, known: Sequence[str]) -> Tree:
    """A tree out of a file's metadata.

    Args:
        data (Any): Parsed JSON.
        known (Sequence[str]): Names of the outputs there are.

    Raises:
        BpuError: It is no tree, or its names are not those of the outputs, each once.
    """
    _check(data, 0)
    names = leaves(data)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BpuError(f'artefact: its metadata names the outputs {", ".join(names)}, but there is '
                       f'no {", ".join(unknown)} among {", ".join(known)}')
    if len(set(names)) != len(names):
        raise BpuError(f'artefact: its metadata names an output twice: {", ".join(names)}')
    return data


def _check(data: Any, depth: int) -> None:
    if data is None or isinstance(data, str):
        return
    if not isinstance(data, list) or depth == DEEPEST:
        raise BpuError('artefact: expected names in nested lists as output_tree in its metadata, '
                       f'at most {DEEPEST} deep, found {type(data).__name__}')
    for part in data:
        _check(part, depth + 1)
