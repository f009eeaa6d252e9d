"""Checkpoints: damaged bytes of both forms, and other pickles behind valid checksums."""
import io
import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple, Tuple

import torch
from torch import nn

from fuzzing.case import Case
from fuzzing.damaged_bytes import damaged
from mmdet_bpu.engine.loading import load_strictly
from mmdet_bpu.engine.weights import check_stage, read_checkpoint

SPECIAL = [b'(', b'.', b'0', b'2', b'R', b'b', b'Q', b'h\0', b'q\xff', b'r\xff\xff\xff\xf0', b'}', b']',
           b'\x85', b'\x86', b'u', b's', b'\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f',
           b'J\xff\xff\xff\x7f', b'J\xff\xff\xff\xff', b'cbuiltins\nbytearray\n',
           b'ctorch\nTensor\n', b'X\xff\xff\xff\x7f', b'\x96\0\0\0\0\2\0\0\0', b'N', b'\x88']
"""Opcodes and operands to put between others: marks, huge counts, calls that make room."""


class Seed(NamedTuple):
    """A valid checkpoint: its bytes, and whether damage to it has a checksum to break."""
    name: str
    data: bytes
    checked: bool


class Foreign:
    """A class that is not looked up."""


class Checkpoint:
    """Ours, a foreign one, and the stream form of both."""
    name = 'checkpoint'

    def prepare(self, folder: Path) -> None:
        """See :class:`fuzzing.case.Kind`."""
        torch.manual_seed(0)
        self.path = folder / 'case.pth'
        self.model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 3))
        self.expected = {key: value.clone() for key, value in self.model.state_dict().items()}
        ours = dict(
            state_dict=OrderedDict(self.expected), optimizer=dict(state={0: dict(step=torch.ones(1))}),
            message_hub=dict(runtime_info=dict(classes=('a', 'b')), log=[
                {'__plain__': 'array', 'dtype': '<f4', 'shape': [2],
                 'data': torch.zeros(8, dtype=torch.uint8)}]),
            meta=dict(epoch=1, iter=4, bpu_stage='float', seed=3))
        foreign = dict(ours, odd=Foreign())
        self.seeds = [_seed(name, content, archive) for archive in (True, False)
                      for name, content in (('ours', ours), ('foreign', foreign))]

    def case(self, rng: random.Random) -> Case:
        """A case's data: the file, and whether its weights have to be the seed's."""
        seed = rng.choice(self.seeds)
        if rng.random() < 0.1:
            return Case((_packed_anew(seed.data), True) if seed.checked else (seed.data, True),
                        f'{seed.name}, as it was')
        if seed.checked and rng.random() < 0.6:
            data, words = _other_pickle(seed.data, rng)
            return Case((data, False), f'{seed.name}, {words} behind valid checksums')
        data, words = damaged(seed.data, rng)
        return Case((data, seed.checked), f'{seed.name}, {words}')

    def run(self, case: Case) -> str:
        """See :class:`fuzzing.case.Kind`."""
        data, kept = case.data
        self.path.write_bytes(data)
        checkpoint = read_checkpoint(str(self.path))
        check_stage(checkpoint, ('float', ), str(self.path), 'train')
        with torch.no_grad():
            for value in self.model.state_dict().values():
                value.zero_()
        load_strictly(self.model, checkpoint['state_dict'], str(self.path))
        state = self.model.state_dict()
        for value in state.values():
            if not bool(torch.isfinite(value).all()):
                return 'different'
        same = all(torch.equal(value, state[key]) for key, value in self.expected.items())
        return 'different' if kept and not same else 'equal'


def _seed(name: str, content: dict, archive: bool) -> Seed:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=archive)
    return Seed(f'{name} {"archive" if archive else "stream"}', buffer.getvalue(), archive)


def _packed_anew(data: bytes, **changed: bytes) -> bytes:
    """The same archive, with new checksums; ``changed`` are parts by the end of their name."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, 'w') as new:
        for name in old.namelist():
            new.writestr(name, changed.get(name.rpartition('/')[2].replace('.', '_'),
                                           old.read(name)))
    return out.getvalue()


def _other_pickle(data: bytes, rng: random.Random) -> Tuple[bytes, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(name for name in archive.namelist() if name.endswith('/data.pkl'))
        pickled = archive.read(name)
    words = []
    for _ in range(rng.choice([1, 1, 2, 4])):
        if rng.random() < 0.5:
            place, part = rng.randrange(len(pickled)), rng.choice(SPECIAL)
            pickled = pickled[:place] + part + pickled[place + rng.choice([0, len(part)]):]
            words.append(f'{part!r} at {place}')
        else:
            pickled, word = damaged(pickled or b'.', rng)
            words.append(word)
    return _packed_anew(data, data_pkl=pickled), f'pickle with {" and ".join(words)}'
