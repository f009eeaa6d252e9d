"""``.hbm`` with other weights, multipliers and tables behind valid hashes.

What such a file computes is whatever its weights say: the simulator is compared with the
interpreter, which has neither its arena nor its plan.
"""
import random
from pathlib import Path

import torch

from fuzzing.case import Case
from fuzzing.executable_runs import equal_outputs, integers
from fuzzing.hbm_seeds import sealed, seeds
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.program.budget import MEMORY_BUDGET
from mmdet_bpu.program.hbm_file import read_hbm

EXTREMES = (b'\x00', b'\xff', b'\x7f', b'\x80', b'\x01')


class HbmWeights:
    """Bytes of the weights section changed; everything else as it was."""
    name = 'hbm_weights'
    budget_bytes = MEMORY_BUDGET

    def prepare(self, folder: Path) -> None:
        """See :class:`fuzzing.case.Kind`."""
        self.seeds = [seed for seed in seeds() if seed.sections['weights']]

    def case(self, rng: random.Random) -> Case:
        """A case's data: a file with valid hashes."""
        seed = rng.choice(self.seeds)
        weights, words = bytearray(seed.sections['weights']), []
        for _ in range(rng.choice([1, 1, 3, 10])):
            # An array starts at a multiple of 64; most of the bytes between are padding.
            start = min(64 * rng.randrange(len(weights) // 64) + rng.choice([0, 0, 1, 7, 20]),
                        len(weights) - 1)
            length = min(rng.choice([1, 1, 2, 8, 64, 512]), len(weights) - start)
            part = rng.choice([rng.randbytes(length), rng.choice(EXTREMES) * length,
                               bytes(reversed(weights[start:start + length]))])
            weights[start:start + length] = part
            words.append(f'{length} bytes at {start}')
        return Case(sealed(seed.header, {**seed.sections, 'weights': bytes(weights)}),
                    f'{seed.name}, {", ".join(words)}')

    def run(self, case: Case) -> str:
        """See :class:`fuzzing.case.Kind`."""
        file = read_hbm(case.data)
        network, = file.networks
        inputs = {spec.name: integers(spec) for spec in
                  map(network.program.spec, network.program.inputs)}
        expected = _answer(lambda: Interpreter(network.program), inputs)
        found = _answer(lambda: HbmSimulator(case.data), inputs)
        if isinstance(expected, BpuError) and isinstance(found, BpuError):
            raise found
        same = isinstance(expected, dict) and isinstance(found, dict) and equal_outputs(
            expected, found)
        return 'equal' if same else 'different'


def _answer(load, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | BpuError:
    """What an executable gives, or why it refuses."""
    try:
        return load().run(inputs)
    except BpuError as error:
        return error
