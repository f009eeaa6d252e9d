"""``.hbm``: damaged bytes, and anything behind hashes that are valid again."""
import hashlib
import json
import random
import struct
from pathlib import Path

from fuzzing.case import Case
from fuzzing.damaged_bytes import damaged
from fuzzing.executable_runs import equal_outputs, serve
from fuzzing.hbm_seeds import Seed, sealed, seeds
from fuzzing.hostile_json import dump, mutated
from fuzzing.large_programs import large_file
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.program.budget import MEMORY_BUDGET
from mmdet_bpu.program.container import MAGIC

JSON_SECTIONS = ('program', 'memory', 'metadata', 'performance')
# Of these a mutation may not change the output of a file that is accepted.
DECLARED_SIZES = ('nbytes', 'arena_bytes', 'peak_live_bytes', 'first', 'last')


class Hbm:
    """Damaged, with one or two changes behind valid hashes, and programs that ask for too much."""
    name = 'hbm'
    budget_bytes = MEMORY_BUDGET

    def prepare(self, folder: Path) -> None:
        """See :class:`fuzzing.case.Kind`."""
        self.seeds = seeds()

    def case(self, rng: random.Random) -> Case:
        """A case's data: the seed, the file, and whether its output has to be the seed's."""
        seed = rng.choice(self.seeds)
        mutation = rng.choice([self._damage, self._header, *[self._section] * 4, self._same,
                               self._large])
        data, kept, words = mutation(seed, rng)
        return Case((seed, data, kept), f'{seed.name}, {words}')

    def run(self, case: Case) -> str:
        """See :class:`fuzzing.case.Kind`."""
        seed, data, kept = case.data
        outputs = serve(HbmSimulator(data))
        return 'different' if kept and not equal_outputs(outputs, seed.outputs) else 'equal'

    def _damage(self, seed: Seed, rng: random.Random):
        data, words = damaged(seed.data, rng)
        return data, True, words

    def _header(self, seed: Seed, rng: random.Random):
        header, words = mutated(seed.header, rng)
        return _with_header(seed.data, dump(header)), True, f'header {words}'

    def _section(self, seed: Seed, rng: random.Random):
        name = rng.choice([*JSON_SECTIONS, 'program', 'program', 'memory'])
        document, words = mutated(json.loads(seed.sections[name]), rng)
        if rng.random() < 0.3:
            document, more = mutated(document, rng)
            words += f' and {more}'
            kept = False
        else:
            kept = words.partition(':')[0].rpartition('/')[2] in DECLARED_SIZES
        data = sealed(seed.header, {**seed.sections, name: dump(document)})
        return data, kept, f'{name} {words}'

    def _large(self, seed: Seed, rng: random.Random):
        data, words = large_file(rng)
        return data, False, words

    def _same(self, seed: Seed, rng: random.Random):
        """Other text of equal meaning: order and blanks of JSON, bytes that nothing refers to."""
        sections = dict(seed.sections)
        if rng.random() < 0.3:
            sections['weights'] += rng.randbytes(64 * rng.randint(1, 4))
            return sealed(seed.header, sections), True, 'more weights that nobody reads'
        name = rng.choice(JSON_SECTIONS)
        content = json.loads(sections[name])
        sections[name] = json.dumps(_shuffled(content, rng), indent=rng.randint(0, 3)).encode()
        return sealed(seed.header, sections), True, f'{name} in another order'


def _with_header(data: bytes, header: bytes) -> bytes:
    """The file with another header and its hash, the sections where they should then be."""
    prefix = struct.Struct('<8sIQ32s')
    _, version, length, _ = prefix.unpack_from(data)
    start = prefix.size + length
    start += -start % 64
    front = prefix.pack(MAGIC, version, len(header), hashlib.sha256(header).digest()) + header
    return front + bytes(-len(front) % 64) + data[start:]


def _shuffled(value, rng: random.Random):
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {key: _shuffled(inner, rng) for key, inner in items}
    return [_shuffled(inner, rng) for inner in value] if isinstance(value, list) else value
