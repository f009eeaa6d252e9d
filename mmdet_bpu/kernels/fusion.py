"""Instructions that a kernel set computes in one go.

A group runs at the place of its last instruction. So what it reads must be there by then, and
nothing outside may read one of its results before. A fuser is a function that finds groups:

    @FAST.fuser
    def find_chains(view):
        for ... in view.free:
            if view.runs_at_end(members):
                yield view.group(members, into)
"""
from collections import defaultdict
from dataclasses import dataclass
from typing import Callable, Iterable

import torch

from mmdet_bpu.program.program import Program

Tensors = list[torch.Tensor]
Into = Callable[[Tensors, Tensors], None]
"""From inputs into outputs: contiguous tensors of the shapes and dtypes that it was planned for.
No output shares memory with an input."""


@dataclass(frozen=True)
class FusedGroup:
    """Instructions that one call computes.

    Attributes:
        members (tuple[int, ...]): Places in the program, ascending.
        inputs (tuple[str, ...]): Values that it reads, constants left out.
        outputs (tuple[str, ...]): Values that are needed outside.
        into (Into): The computation, in the order of inputs and outputs.
    """
    members: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    into: Into


class FusionView:
    """What a fuser looks at.

    Args:
        program (Program): Integer program.
        constants (dict[str, torch.Tensor]): Value name -> constant.

    Attributes:
        free (set[int]): Places of the instructions that no group has yet.
        producers (dict[str, int]): Value name -> place of the instruction that gives it.
        consumers (dict[str, list[int]]): Value name -> places of those that read it, in order.
    """

    def __init__(self, program: Program, constants: dict[str, torch.Tensor]) -> None:
        self.program, self.constants = program, constants
        self.free = set(range(len(program.instructions)))
        self.producers: dict[str, int] = {}
        self.consumers: dict[str, list[int]] = defaultdict(list)
        for place, instruction in enumerate(program.instructions):
            self.producers.update(dict.fromkeys(instruction.outputs, place))
            for name in dict.fromkeys(instruction.inputs):
                self.consumers[name].append(place)

    def borders(self, members: Iterable[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Values that cross the border of a group: those it reads, those needed outside."""
        places = sorted(members)
        inside = set(places)
        instructions = [self.program.instructions[place] for place in places]
        made = [name for each in instructions for name in each.outputs]
        read = dict.fromkeys(name for each in instructions for name in each.inputs
                             if name not in self.constants)
        kept = set(self.program.outputs)
        needed = [name for name in made
                  if name in kept or any(p not in inside for p in self.consumers[name])]
        return tuple(name for name in read if name not in set(made)), tuple(needed)

    def runs_at_end(self, members: Iterable[int]) -> bool:
        """Whether nothing outside reads a result before the last member's place, and nothing inside
        reads a value before it is there: a program in a wrong order stays wrong."""
        inside = set(members)
        last = max(inside)
        instructions = self.program.instructions
        return all(place in inside or place > last for member in inside
                   for name in instructions[member].outputs
                   for place in self.consumers[name]) and all(
            self.producers.get(name, -1) < member for member in inside
            for name in instructions[member].inputs)

    def group(self, members: Iterable[int], into: Into) -> FusedGroup:
        """A group of free instructions; they are free no longer.

        Args:
            members (Iterable[int]): Places.
            into (Into): Takes and gives the values of :meth:`borders`, in that order.
        """
        places = tuple(sorted(members))
        assert self.free.issuperset(places) and self.runs_at_end(places)
        self.free.difference_update(places)
        return FusedGroup(places, *self.borders(places), into)


Fuser = Callable[[FusionView], Iterable[FusedGroup]]


def find_groups(program: Program, constants: dict[str, torch.Tensor],
                fusers: list[Fuser]) -> list[FusedGroup]:
    """Groups of all fusers, disjoint; earlier fusers have the first choice."""
    view = FusionView(program, constants)
    return [group for find in fusers for group in find(view)]
