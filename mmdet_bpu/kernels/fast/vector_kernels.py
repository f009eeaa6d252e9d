"""The instructions of the vector machine: alone, and as chains that one pass computes."""
from dataclasses import dataclass
from typing import Iterable, Optional

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.fast import FAST
from mmdet_bpu.kernels.fast.vector_chain import Cut, Link, best_cut, compile_chain
from mmdet_bpu.kernels.fast.vector_ops import VECTOR_OPS
from mmdet_bpu.kernels.fusion import FusedGroup, FusionView, Into
from mmdet_bpu.program.numerics import Operand

# Longer chains are cut: their registers would leave the cache.
MAX_LINKS = 48


def _plan_alone(op: str):

    def plan(operands: list[Operand], attrs: dict) -> Optional[Into]:
        vector_op = VECTOR_OPS[op](operands, attrs)
        if vector_op is None:
            return None
        names = [f'operand {index}' for index in range(len(operands))]
        result = Operand(attrs['out_dtypes'][0], tuple(attrs['out_shapes'][0]))
        values = {**dict(zip(names, operands)), 'result': result}
        cut = best_cut([Link(vector_op, names, 'result')], values)
        return None if cut is None else compile_chain(cut, names, ['result'])

    return plan


for _op in VECTOR_OPS:
    if _op != 'bpu.reshape':  # a view in the reference set
        FAST.into(_op)(_plan_alone(_op))


@dataclass(eq=False)
class _Chain:
    places: list[int]
    cut: Cut


class _ChainFinder:
    """Grows chains along a program."""

    def __init__(self, view: FusionView) -> None:
        self.view = view
        self.values = {name: Operand(value.type.dtype, tuple(value.type.shape),
                                     view.constants.get(name))
                       for name, value in view.program.values.items()}
        self.links: dict[int, Link] = {}
        self.owners: dict[str, _Chain] = {}
        self.chains: list[_Chain] = []

    def find(self) -> list[_Chain]:
        """Chains of two or more instructions that compute."""
        for place in sorted(self.view.free):
            link = self._link(place)
            if link is not None:
                self.links[place] = link
                self._place(place, link)
        return [chain for chain in self.chains if sum(
            self.links[place].op.emit is not None for place in chain.places) > 1]

    def _link(self, place: int) -> Optional[Link]:
        instruction = self.view.program.instructions[place]
        make = VECTOR_OPS.get(instruction.op)
        if make is None:
            return None
        try:
            op = make([self.values[name] for name in instruction.inputs],
                      self.view.program.kernel_attrs(instruction))
        except BpuError:  # refused with its place when it is planned alone
            return None
        return op and Link(op, instruction.inputs, instruction.outputs[0])

    def _place(self, place: int, link: Link) -> None:
        """Put an instruction into the chain or chains that it continues, or begin one."""
        before = list({id(chain): chain for name in link.inputs
                       if (chain := self.owners.get(name)) is not None}.values())
        if link.op.emit is None and not self._only_reader(link.inputs[0], place):
            return
        attempts = [before] if len(before) > 1 else []
        attempts += [[chain] for chain in sorted(before, key=lambda c: -len(c.places))]
        if link.op.emit is not None:
            attempts.append([])
        for chains in attempts:
            places = sorted({place, *(p for chain in chains for p in chain.places)})
            if len(places) > MAX_LINKS or not self.view.runs_at_end(places):
                continue
            cut = best_cut([self.links[p] for p in places], self.values)
            if cut is not None:
                self.chains = [chain for chain in self.chains if chain not in chains]
                self.chains.append(_Chain(places, cut))
                self.owners.update((self.links[p].output, self.chains[-1]) for p in places)
                return

    def _only_reader(self, name: str, place: int) -> bool:
        return self.view.consumers[name] == [place] and name not in self.view.program.outputs


@FAST.fuser
def find_chains(view: FusionView) -> Iterable[FusedGroup]:
    """Chains of element-wise instructions, tables and reductions of last dimensions."""
    for chain in _ChainFinder(view).find():
        inputs, outputs = view.borders(chain.places)
        yield view.group(chain.places, compile_chain(chain.cut, inputs, outputs))
