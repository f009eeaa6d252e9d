"""Kill trainings, fill their disks, repeat the command line, compare with a run left alone.

    python benchmarks/kills.py [--kills 200] [--full-disk 4] [--seed 0] [--only NAME ...]

Trainings of a tiny detector (``kill_recipes.py``: by epochs, by iterations, with the best
checkpoint, with averaged weights, QAT from float weights) are killed by SIGKILL at random times, at
every kind of moment while a checkpoint is saved, and in the middle of its bytes, up to three times
each. After each kill the same command line is given again. A full disk has to end with exit code 2
and one sentence, ``--full-disk`` times for each writer in ``full_disks.py``; with room again the
same command line goes on.

Prints JSON: ``kills``; ``resumed_equal``, kills of trainings that ended bit-equal to one that was
left alone, in every checkpoint that is kept; ``lost``, kills after which a saved checkpoint was
gone; ``disk_full``, times a disk was full; ``recovered``, those that said so and then ended
bit-equal. Exit code 1 unless nothing was lost, all were equal and all recovered.
"""
import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Sequence

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported

import torch  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

import full_disks  # noqa: E402
from kill_process import Ended, Kill, import_shared, run  # noqa: E402
from kill_recipes import RECIPES, command, write_data  # noqa: E402
from mmdet_bpu.engine.newest_checkpoint import newest_checkpoint  # noqa: E402
from mmdet_bpu.engine.weights import read_checkpoint  # noqa: E402
from mmdet_bpu.engine.whole_checkpoints import WholeCheckpointRunner  # noqa: E402

KILLS_OF_A_RUN = 3
COMPARED = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')


class Campaign:
    """Trainings that are killed.

    Args:
        folder (Path): An empty folder to work in.
        seed (int): Of what is killed when.
        names (Sequence[str]): Recipes. Defaults to all.
        stock_saving (bool): Save as mmengine does. Defaults to False.
    """

    def __init__(self, folder: Path, seed: int, names: Sequence[str] = tuple(RECIPES),
                 stock_saving: bool = False) -> None:
        import_shared()
        if stock_saving:
            for name in ('register_hook', 'save_checkpoint'):
                setattr(WholeCheckpointRunner, name, getattr(Runner, name))
        self.folder, self.names, self.rng = folder, list(names), random.Random(seed)
        self.counts = dict(kills=0, resumed_equal=0, lost=0, disk_full=0, recovered=0)
        self.references: Dict[str, Ended] = {}
        self.runs = 0
        torch.set_num_threads(1)
        write_data(folder)

    def reference(self, name: str) -> Ended:
        """A run of a recipe that is left alone, in the folder of the recipe's name."""
        if name not in self.references:
            if RECIPES[name].from_float and not (self.folder / 'float.pth').is_file():
                self.reference('epochs')
                shutil.copy(newest_checkpoint(self.folder / 'epochs'), self.folder / 'float.pth')
            work_dir = self.folder / name
            ended = run(command(self.folder, name, work_dir), work_dir)
            assert ended.code == 0, ended.errors
            self.references[name] = ended
        return self.references[name]

    def kill(self, kills: int) -> None:
        """Kill trainings this many times."""
        while self.counts['kills'] < kills:
            name = self.names[self.runs % len(self.names)]
            self._killed_run(name, min(self.rng.randint(1, KILLS_OF_A_RUN),
                                       kills - self.counts['kills']))

    def _killed_run(self, name: str, wanted: int) -> None:
        reference = self.reference(name)
        work_dir = self._new_folder(name)
        argv = command(self.folder, name, work_dir)
        kills, stood = [], -1
        while len(kills) < wanted:
            kill = self._draw(reference, work_dir.with_name(name))
            ended = run(argv, work_dir, kill)
            if ended.code == 0:  # it was faster
                break
            assert ended.code < 0, ended.errors
            now = iterations(work_dir)
            self.counts['kills'] += 1
            lost = now < stood or (ended.saved > 0 and now <= stood)
            self.counts['lost'] += lost
            kills.append(f'{kill}{" LOST" if lost else ""}')
            stood = max(stood, now)
        equal = self._ends_equal(name, argv, work_dir)
        self.counts['resumed_equal'] += len(kills) * equal
        say(f'{name}: {"equal" if equal else "DIFFERENT"} after {"; ".join(kills) or "no kill"}')

    def _draw(self, reference: Ended, whole: Path) -> Kill:
        """A random moment, or one of saving."""
        kind = self.rng.choice(('time', 'change', 'writing'))
        if kind == 'time':
            return Kill(after=self.rng.uniform(0.1, reference.seconds))
        changes = [index for index, change in enumerate(reference.changes, start=1)
                   if kind == 'change' or change.startswith('open') and ' last_' not in change]
        size = min(path.stat().st_size for path in whole.glob('*.pth'))
        return Kill(change=self.rng.choice(changes),
                    writing=self.rng.randrange(size) if kind == 'writing' else None)

    def fill(self, times: int) -> None:
        """Let the disk be full, so many times for each writer."""
        for writer in full_disks.WRITERS:
            for _ in range(times):
                name = self.names[self.runs % len(self.names)]
                self._full_run(name, writer)

    def _full_run(self, name: str, writer: str) -> None:
        self.reference(name)
        checkpoint = max(path.stat().st_size for path in (self.folder / name).glob('*.pth'))
        work_dir = self._new_folder(name)
        argv = command(self.folder, name, work_dir)
        with full_disks.disk(work_dir, full_disks.WRITERS[writer], checkpoint, self.rng) as limit:
            ended = run(argv, work_dir, limit=limit)
            self.counts['disk_full'] += 1
            said = full_disks.said_so(ended)
            kept = not ended.saved or iterations(work_dir) > 0
        equal = self._ends_equal(name, argv, work_dir)
        self.counts['recovered'] += said and kept and equal
        say(f'{name}, {writer}: {"told" if said else f"NOT TOLD ({ended.code}): {ended.errors}"}, '
            f'{"" if kept else "LOST, "}{"equal" if equal else "DIFFERENT"} with room again')

    def _ends_equal(self, name: str, argv: List[str], work_dir: Path) -> bool:
        """Whether the command line, repeated, ends as if nothing had happened."""
        ended = run(argv, work_dir)
        different = [f'exit code {ended.code}: {ended.errors}'] if ended.code else \
            differences(self.folder / name, work_dir)
        for line in different:
            say(f'  {line}')
        if not different:
            shutil.rmtree(work_dir)
        return not different

    def _new_folder(self, name: str) -> Path:
        self.runs += 1
        return self.folder / f'{name}_{self.runs}'


def iterations(work_dir: Path) -> int:
    """Iterations of the newest checkpoint that opens; -1 without one."""
    newest = newest_checkpoint(work_dir, resumable=True)
    return -1 if newest is None else read_checkpoint(str(newest))['meta']['iter']


def differences(first: Path, second: Path) -> List[str]:
    """What differs in the checkpoints that two runs keep, as text; whatever is left over counts."""
    names = [sorted(path.name for path in folder.iterdir()
                    if path.suffix == '.pth' or path.name.startswith('.'))
             for folder in (first, second)]
    if names[0] != names[1]:
        return [f'files {names[1]}, expected {names[0]}']
    found = []
    for name in names[0]:
        expected, actual = (read_checkpoint(str(folder / name)) for folder in (first, second))
        found += [f'{name}: {key}' for key in COMPARED
                  if not same(expected.get(key), actual.get(key))]
        found += [f'{name}: meta {key}' for key in ('epoch', 'iter', 'seed')
                  if expected['meta'].get(key) != actual['meta'].get(key)]
    return found


def same(first: Any, second: Any) -> bool:
    """Whether two trees of tensors and plain data are equal, bit by bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype \
            and torch.equal(first, second)
    if isinstance(first, dict):
        return isinstance(second, dict) and list(first) == list(second) \
            and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return isinstance(second, (list, tuple)) and len(first) == len(second) \
            and all(map(same, first, second))
    return first == second


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=200, metavar='N')
    parser.add_argument('--full-disk', type=int, default=4, metavar='N', help='times per writer')
    parser.add_argument('--seed', type=int, default=0, metavar='S')
    parser.add_argument('--only', nargs='+', choices=RECIPES, default=list(RECIPES),
                        help='recipes (default: all)')
    parser.add_argument('--stock-saving', action='store_true',
                        help='save as mmengine does, to see what that loses')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), args.seed, args.only, args.stock_saving)
        campaign.kill(args.kills)
        campaign.fill(args.full_disk)
    counts = campaign.counts
    print(json.dumps(counts))
    raise SystemExit(counts['lost'] > 0 or counts['resumed_equal'] < counts['kills']
                     or counts['recovered'] < counts['disk_full'])


if __name__ == '__main__':
    main()
