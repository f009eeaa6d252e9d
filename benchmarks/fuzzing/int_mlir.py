"""``.int.mlir``: integer modules as text."""
import random
from pathlib import Path

from fuzzing.case import Case
from fuzzing.damaged_bytes import damaged
from fuzzing.executable_runs import equal_outputs, serve
from fuzzing.hostile_text import mutated, restyled
from fuzzing.integer_seeds import modules
from mmdet_bpu.hbir.text import print_text
from mmdet_bpu.lowering.artifact_formats import load_artifact
from mmdet_bpu.program.budget import MEMORY_BUDGET


class IntMlir:
    """Text changed by bytes, tokens and lines; read from a file as users do."""
    name = 'int_mlir'
    budget_bytes = MEMORY_BUDGET

    def prepare(self, folder: Path) -> None:
        """See :class:`fuzzing.case.Kind`."""
        self.path = folder / 'model.int.mlir'
        self.seeds = {name: print_text(module) for name, module in modules().items()}
        self.outputs = {name: self._serve(text.encode()) for name, text in self.seeds.items()}

    def case(self, rng: random.Random) -> Case:
        """A case's data: name of the seed, the file, and whether it means what the seed means."""
        name = rng.choice(list(self.seeds))
        text, chance = self.seeds[name], rng.random()
        if chance < 0.1:
            data, words = damaged(text.encode(), rng)
            return Case((name, data, False), f'{name}, {words}')
        changed, words = (restyled if chance < 0.2 else mutated)(text, rng)
        return Case((name, changed.encode(), chance < 0.2), f'{name}, {words}')

    def run(self, case: Case) -> str:
        """See :class:`fuzzing.case.Kind`."""
        name, data, kept = case.data
        outputs = self._serve(data)
        return 'different' if kept and not equal_outputs(outputs, self.outputs[name]) else 'equal'

    def _serve(self, data: bytes) -> dict:
        self.path.write_bytes(data)
        return serve(load_artifact(self.path))
