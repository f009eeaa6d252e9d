"""Movement instructions as strides: an element's place in one value, as a sum over another's dims.

A view is a tensor on the device ``meta``, which has a shape, strides and an offset (of elements),
and no data. torch's own rules say which reshape of which strides is a view.
"""
from dataclasses import dataclass
from typing import Iterable, Optional

import torch

from mmdet_bpu.kernels.fusion import FusionView
from mmdet_bpu.program.program import Instruction

META = torch.device('meta')
MOVEMENT = ('bpu.reshape', 'bpu.transpose', 'bpu.slice')
View = torch.Tensor


def contiguous_view(shape: Iterable[int]) -> View:
    """A value as it is stored."""
    return torch.empty(tuple(shape), dtype=torch.int8, device=META)


def moved(view: View, instruction: Instruction) -> Optional[View]:
    """The result of a reshape, transpose or slice of a view; None if it cannot be one."""
    attrs = instruction.attrs
    if instruction.op == 'bpu.transpose':
        return view.permute(tuple(attrs['dims']))
    if instruction.op == 'bpu.slice':
        return view[tuple(map(slice, *(map(int, attrs[key]) for key in ('begin', 'end', 'step'))))]
    assert instruction.op == 'bpu.reshape', instruction.op
    return _reshaped(view, attrs['shape'])


def moved_back(view: View, instruction: Instruction, shapes: list[tuple[int, ...]]
               ) -> Optional[list[View]]:
    """Where a result lies, seen from each operand: the inverse of :func:`moved`, and of a concat.

    Args:
        view (View): Of the shape of the result.
        instruction (Instruction): A reshape, transpose or concat.
        shapes (list[tuple[int, ...]]): Of the operands.

    Returns:
        list[View] | None: Of the shapes of the operands; None if a reshape cannot be one.
    """
    if instruction.op == 'bpu.transpose':
        dims = tuple(instruction.attrs['dims'])
        return [view.permute(tuple(dims.index(dim) for dim in range(len(dims))))]
    if instruction.op == 'bpu.concat':
        dim = instruction.attrs['dim']
        return list(view.split([shape[dim] for shape in shapes], dim))
    assert instruction.op == 'bpu.reshape', instruction.op
    back = _reshaped(view, shapes[0])
    return None if back is None else [back]


def _reshaped(view: View, shape: Iterable[int]) -> Optional[View]:
    try:
        return view.view(tuple(shape))
    except RuntimeError:  # torch's way of saying that it would be a copy
        return None


@dataclass(frozen=True)
class Source:
    """What a value is a view of.

    Attributes:
        name (str): A value that is stored.
        view (View): The value as a view of it.
        members (frozenset[int]): Places of the movement instructions between them.
    """
    name: str
    view: View
    members: frozenset[int] = frozenset()

    @property
    def offset(self) -> int:
        """Of the view's first element."""
        return self.view.storage_offset()

    @property
    def strides(self) -> tuple[int, ...]:
        """Of elements, 0 along a dimension of one."""
        return strides(self.view)


def strides(view: View) -> tuple[int, ...]:
    """Strides of elements, 0 along a dimension of one."""
    return tuple(stride if size > 1 else 0 for stride, size in zip(view.stride(), view.shape))


def source(fusion: FusionView, name: str, closed: set[int]) -> Source:
    """The farthest value that another is a view of, through free movement instructions.

    Args:
        fusion (FusionView): Program.
        name (str): The value.
        closed (set[int]): Places that may not be folded.
    """
    place = fusion.producers.get(name)
    if place in fusion.free and place not in closed:
        instruction = fusion.program.instructions[place]
        if instruction.op in MOVEMENT:
            before = source(fusion, instruction.inputs[0], closed)
            view = moved(before.view, instruction)
            if view is not None:
                return Source(before.name, view, before.members | {place})
    return Source(name, contiguous_view(fusion.program.values[name].type.shape))


def destination(fusion: FusionView, name: str) -> list[Source]:
    """Values that another can be stored as, through free reshapes and transposes.

    Args:
        fusion (FusionView): Program.
        name (str): The value.

    Returns:
        list[Source]: The farthest first, the value itself last; ``view`` is the value as a view of
        ``name``.
    """
    chain: list[int] = []
    found = [Source(name, contiguous_view(fusion.program.values[name].type.shape))]
    while name not in fusion.program.outputs and len(fusion.consumers[name]) == 1:
        place = fusion.consumers[name][0]
        instruction = fusion.program.instructions[place]
        if place not in fusion.free or instruction.op not in ('bpu.reshape', 'bpu.transpose'):
            break
        chain.append(place)
        name = instruction.outputs[0]
        view: Optional[View] = contiguous_view(fusion.program.values[name].type.shape)
        for each in reversed(chain):
            before = fusion.program.instructions[each]
            back = moved_back(view, before, [fusion.program.values[before.inputs[0]].type.shape])
            view = None if back is None else back[0]
            if view is None:
                break
        if view is not None:
            found.append(Source(name, view, frozenset(chain)))
    return found[::-1]
