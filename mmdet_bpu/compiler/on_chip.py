"""DDR traffic of each instruction: which activations leave a core's SRAM.

A model of the compiler, not of a document. It gives the published traffic of twelve networks within
some tens of percent (``docs/hbm.md``):

* Chains of instructions run row by row (:mod:`mmdet_bpu.compiler.tile_chains`); what is made and
  read within one takes only rows.
* Values that cross from one chain to another are whole. They compete for the SRAM that a chain
  leaves; the largest, then the longest-living, goes to DDR for its whole life.
* A value in DDR is written once and read once by each chain that needs it.
* A product both of whose operands come from DDR, and fit on chip neither, reads one of them again
  for each part of the other.
"""
from collections import defaultdict
from dataclasses import dataclass

from mmdet_bpu.compiler.tile_chains import FREE_OPS, Chain, Flow, chains_of
from mmdet_bpu.program.kinds import Cost, operations_of
from mmdet_bpu.program.program import Program

PRODUCTS = operations_of(Cost.MAC)
PASSES = 2
"""Chains are cut again when it is known what is in DDR and takes no SRAM."""


@dataclass(frozen=True)
class Traffic:
    """Of one inference.

    Attributes:
        read (list[int]): DDR bytes that each instruction of the schedule reads, constants included.
        written (list[int]): DDR bytes that it writes.
        in_ddr (set[str]): Activations that live in DDR. Inputs and outputs of the program are among
            them: a host writes and reads them there.
        chains (list[Chain]): Over the instructions that do work.
    """
    read: list[int]
    written: list[int]
    in_ddr: set[str]
    chains: list[Chain]


def traffic(program: Program, order: list[int], sram_bytes: int) -> Traffic:
    """DDR traffic of a program.

    Args:
        program (Program): Integer program.
        order (list[int]): Schedule.
        sram_bytes (int): On-chip memory.
    """
    flow = Flow.of(program, order)
    in_ddr = set(program.inputs) | flow.outputs
    chains: list[Chain] = []
    for _ in range(PASSES):
        chains = chains_of(flow, sram_bytes, in_ddr)
        in_ddr = _spilled(flow, chains, sram_bytes) | set(program.inputs) | flow.outputs
    read, written = _moved(flow, chains, in_ddr, sram_bytes)
    by_step = iter(zip(read, written))
    pairs = [(0, 0) if program.instructions[index].op in FREE_OPS else next(by_step)
             for index in order]
    return Traffic([pair[0] for pair in pairs], [pair[1] for pair in pairs], in_ddr, chains)


def _chain_of_steps(flow: Flow, chains: list[Chain]) -> list[int]:
    """Index of the chain of each step; behind the last step, their number."""
    numbers = [index for index, chain in enumerate(chains)
               for _ in range(chain.start, chain.end)]
    return [*numbers, len(chains)]


def _spilled(flow: Flow, chains: list[Chain], sram_bytes: int) -> set[str]:
    """Values that find no place in the SRAM."""
    number = _chain_of_steps(flow, chains)
    ends: dict[str, int] = {}
    starting: dict[int, list[str]] = defaultdict(list)
    for name, step in flow.producer.items():
        first, end = number[step], number[flow.last[name]]
        within = first == end and flow.makes_rows[step] and all(
            flow.reads_rows[reader] for reader in flow.readers[name])
        if not within and name not in flow.outputs:
            ends[name] = end
            starting[first].append(name)
    spilled: set[str] = set()
    live: list[str] = []
    for index, chain in enumerate(chains):
        live = [name for name in live if ends[name] >= index] + starting[index]
        used = sum(map(flow.size, live)) + chain.held_bytes
        while used > sram_bytes and live:
            victim = max(live, key=lambda name: (flow.size(name), ends[name], name))
            live.remove(victim)
            used -= flow.size(victim)
            spilled.add(victim)
    return spilled


def _moved(flow: Flow, chains: list[Chain], in_ddr: set[str],
           sram_bytes: int) -> tuple[list[int], list[int]]:
    """DDR bytes that each step reads and writes."""
    number = _chain_of_steps(flow, chains)
    read, written, known = [], [], set()
    for step, instruction in enumerate(flow.steps):
        fetched = []
        for name in flow.operands(step):
            made = flow.producer.get(name, -1)
            passed = made >= 0 and number[made] == number[step] and flow.makes_rows[made] \
                and flow.reads_rows[step]
            if name in in_ddr and not passed and (name, number[step]) not in known:
                known.add((name, number[step]))
                fetched.append(flow.size(name))
        if flow.weights[step]:
            fetched.append(flow.weights[step])
        again = _read_again(fetched, sram_bytes) if instruction.op in PRODUCTS else 0
        read.append(sum(fetched) + again)
        written.append(sum(flow.size(name) for name in instruction.outputs if name in in_ddr))
    return read, written


def _read_again(fetched: list[int], sram_bytes: int) -> int:
    """Bytes of a product that are read more than once: of the two largest operands, one for every
    part of the other that fits on chip, whichever is less."""
    if len(fetched) < 2 or min(sorted(fetched)[-2:]) <= sram_bytes:
        return 0
    smaller, larger = sorted(fetched)[-2:]
    return min(smaller * (-(-larger // sram_bytes) - 1), larger * (-(-smaller // sram_bytes) - 1))
