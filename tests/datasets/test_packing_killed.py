"""A packer that is killed or interrupted loses nothing, and a second one is kept out."""
import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from mmdet_bpu.datasets import (image_readers, lmdb_packer, lmdb_verify, lmdb_writer,
                                pack_coco)
from mmdet_bpu.datasets.lmdb_target import claimed
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.errors import BpuError

REPOSITORY = Path(__file__).parents[2]
FORK = multiprocessing.get_context('fork')
PATIENCE = 60  # s, for what takes less than one on a machine that is not busy
SMALL_BATCH = 400_000  # bytes, with LMDB's share: some 30 small images in each transaction


@pytest.fixture(autouse=True)
def ctrl_c_is_not_ignored():
    """As it is for what a shell starts in the background, and for all that this starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def records(path):
    """Every record of a database, by file and key."""
    found = {}
    for file in sorted(Path(path).glob('*.mdb')):
        with lmdb.open(str(file), subdir=False, readonly=True, lock=False) as environment:
            with environment.begin() as transaction:
                found[file.name] = dict(transaction.cursor())
    return found


def write_data_set(folder, number, size=(24, 18)):
    rng = np.random.default_rng(number)
    (folder / 'images').mkdir(parents=True)
    images, annotations = [], []
    for image_id in rng.permutation(3 * number)[:number].tolist():
        pixels = Image.fromarray(rng.integers(0, 256, (18, 24, 3), dtype=np.uint8))
        name = f'{image_id}.{"png" if image_id % 10 == 0 else "jpg"}'
        pixels.resize(size).save(folder / 'images' / name)
        images.append(dict(id=image_id, file_name=name, width=size[0], height=size[1]))
        annotations += [dict(id=4 * image_id + n, image_id=image_id, category_id=1,
                             bbox=[n, n, 8, 8.5], area=68.0) for n in range(image_id % 4)]
    ann_file = folder / 'instances.json'
    ann_file.write_text(json.dumps(dict(images=images, annotations=annotations,
                                        categories=[dict(id=1, name='thing')])))
    return folder / 'images', ann_file


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    """400 images, a tenth of them PNG."""
    return write_data_set(tmp_path_factory.mktemp('many'), 400)


@pytest.fixture
def target(tmp_path):
    (tmp_path / 'out').mkdir()
    return tmp_path / 'out' / 'train_lmdb'


class Packer:
    """A packer in a process of its own that commits often.

    Args:
        arguments: Of ``pack_coco``.
        first (Callable): Called in that process before it packs.
        options: Of ``pack_coco``.
    """

    def __init__(self, *arguments, first=lambda: None, **options):
        # Its reader processes inherit the writing end: the pipe is closed when all have ended.
        self._all_ended, held = os.pipe()
        self.process = FORK.Process(target=self._run, args=(arguments, first, options))
        self.process.start()
        os.close(held)

    @staticmethod
    def _run(arguments, first, options):
        lmdb_writer.BATCH_BYTES = SMALL_BATCH
        first()
        pack_coco(*arguments, processes=2, **options)

    def kill(self) -> bool:
        """SIGKILL; False if it had finished before."""
        self.process.kill()
        return self.end() == -signal.SIGKILL

    def end(self) -> int:
        """Wait for it; its exit code."""
        self.process.join(PATIENCE)
        return self.process.exitcode

    def readers_end(self) -> bool:
        """Wait until no process of it is left."""
        ended, _, _ = select.select([self._all_ended], [], [], PATIENCE)
        os.close(self._all_ended)
        return bool(ended)

    def wait_until_it_stops(self) -> None:
        """Wait for a SIGSTOP that it sends itself."""
        assert os.WIFSTOPPED(os.waitpid(self.process.pid, os.WUNTRACED)[1])


def stop_when_claimed():
    partial_folder = lmdb_packer.partial_folder

    def stop_first(*arguments):
        os.kill(os.getpid(), signal.SIGSTOP)
        return partial_folder(*arguments)

    lmdb_packer.partial_folder = stop_first


def die_at_step(step):
    """A function that makes the ``step``-th change of the names on the disk at the end deadly."""
    def prepare():
        move_into_place = lmdb_packer.move_into_place

        def move_and_die(*arguments):
            steps = count()
            for name in ('rename', 'unlink', 'rmdir', 'fsync'):
                setattr(os, name, deadly(getattr(os, name), steps))
            move_into_place(*arguments)

        lmdb_packer.move_into_place = move_and_die

    def deadly(function, steps):
        def call(*arguments, **options):
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return call

    return prepare


@pytest.mark.parametrize('shards, kills', [(1, 20), (3, 8)])
def test_killed_at_any_moment_and_resumed_it_packs_the_same(many, target, shards, kills):
    whole = target.with_name('whole')
    pack_coco(*many, whole, shards=shards)
    expected = records(whole)
    start = time.monotonic()
    assert Packer(*many, target, shards=shards).end() == 0
    duration = time.monotonic() - start
    assert records(target) == expected
    rng = random.Random(shards)
    names_while_packing = {'whole', 'train_lmdb.partial', '.train_lmdb.lock'}
    killed = finished = 0
    while killed < kills:
        if target.exists():
            target.rename(target.with_name(f'finished{finished}'))
            names_while_packing.add(f'finished{finished}')
            finished += 1
        packer = Packer(*many, target, shards=shards, resume=True)
        time.sleep(rng.uniform(0, duration))
        if packer.kill():
            killed += 1
            with claimed(target):
                pass
        else:
            assert packer.end() == 0
        assert packer.readers_end()
        if target.exists():
            assert records(target) == expected
        assert set(os.listdir(target.parent)) <= names_while_packing | {'train_lmdb'}
    if not target.exists():
        pack_coco(*many, target, shards=shards, resume=True)
    assert records(target) == expected
    verify_database(target)


@pytest.mark.parametrize('shards', [1, 2])
@pytest.mark.parametrize('replace', [False, True])
def test_killed_while_it_gives_the_database_its_name_it_loses_neither(
        coco_files, target, shards, replace):
    pack_coco(*coco_files, target.with_name('old'))
    old = records(target.with_name('old'))
    coco_files.rewrite(annotations=coco_files.content()['annotations'][:5])
    pack_coco(*coco_files, target.with_name('new'), shards=shards)
    new = records(target.with_name('new'))
    assert old != new
    for step in count():
        if replace:
            target.mkdir()
            for file in target.with_name('old').iterdir():
                os.link(file, target / file.name)
        code = Packer(*coco_files, target, shards=shards, overwrite=replace,
                      first=die_at_step(step)).end()
        if code == 0:
            break
        assert code == -signal.SIGKILL
        with pytest.raises(BpuError, match='train_lmdb exists|is an interrupted packing'):
            pack_coco(*coco_files, target, shards=shards)
        if replace or target.exists():
            assert records(target) in ([old, new] if replace else [new])
            verify_database(target)
        if not target.exists() or records(target) != new:
            pack_coco(*coco_files, target, shards=shards, overwrite=replace, resume=True)
        assert records(target) == new
        pack_coco(*coco_files, target, shards=shards, overwrite=True)
        assert set(os.listdir(target.parent)) == {'old', 'new', 'train_lmdb'}
        shutil.rmtree(target)
    assert step >= (8 if replace else 4)
    assert records(target) == new


@pytest.mark.parametrize('resume', [False, True])
def test_second_packer_is_refused_at_once_while_the_first_runs(coco_files, target, resume):
    if resume:
        assert Packer(*coco_files, target, first=die_at_step(0)).end() == -signal.SIGKILL
    packer = Packer(*coco_files, target, resume=resume, first=stop_when_claimed)
    packer.wait_until_it_stops()
    for options in ({}, dict(resume=True), dict(overwrite=True)):
        with pytest.raises(BpuError, match='another process is packing .*train_lmdb; wait for it'):
            pack_coco(*coco_files, target, **options)
    os.kill(packer.process.pid, signal.SIGCONT)
    assert packer.end() == 0
    assert verify_database(target)['counts']['images'] == 8


def test_ctrl_c_does_not_reach_the_processes_that_read(coco_files, target, monkeypatch):
    def interrupted(function):
        return lambda *arguments: os.kill(os.getpid(), signal.SIGINT) or function(*arguments)

    for module, name in ((image_readers, '_read_batch'), (lmdb_verify, '_verify')):
        monkeypatch.setattr(module, name, interrupted(getattr(module, name)))
    assert pack_coco(*coco_files, target) == verify_database(target)


def test_ctrl_c_ends_a_verification_without_a_trace(coco_files, target):
    pack_coco(*coco_files, target)
    reading = FORK.Event()

    def verify():
        os.setsid()
        os.dup2(os.open(target.parent / 'errors', os.O_WRONLY | os.O_CREAT), 2)
        lmdb_verify._verify = lambda *_: (reading.set(), time.sleep(PATIENCE))
        try:
            verify_database(target)
        except KeyboardInterrupt:
            os._exit(130)

    process = FORK.Process(target=verify)
    process.start()
    assert reading.wait(PATIENCE)
    os.killpg(process.pid, signal.SIGINT)
    process.join(PATIENCE / 2)
    assert process.exitcode == 130
    assert (target.parent / 'errors').read_text() == ''


def test_command_that_is_killed_or_stopped_by_ctrl_c_goes_on_with_resume(tmp_path, target):
    # Large images that are decoded by one process: more than a second of work.
    img_dir, ann_file = write_data_set(tmp_path / 'large', 8, (1200, 800))
    images = json.loads(ann_file.read_text())['images']
    images = [dict(image, id=100 * n + image['id']) for n in range(32) for image in images]
    ann_file.write_text(json.dumps(dict(images=images, categories=[dict(id=1, name='thing')])))
    killed, stopped, whole = (target.with_name(name) for name in ('killed', 'stopped', 'whole'))

    def started(out):
        arguments = ['--img-dir', img_dir, '--ann', ann_file, '--out', out, '--resume',
                     '--check-images', 'decode', '--processes', '1']
        return subprocess.Popen([sys.executable, 'tools/pack_coco_lmdb.py', *arguments], text=True,
                                cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True)

    # Both at once: most of their time is imports.
    process = {out: started(out) for out in (killed, stopped)}
    end = {killed: process[killed].kill,
           stopped: lambda: os.killpg(process[stopped].pid, signal.SIGINT)}
    while end:
        for out in list(end):
            if out.with_name(f'{out.name}.partial').joinpath('data.mdb').exists():
                end.pop(out)()
            assert process[out].poll() is None or out not in end
        time.sleep(0.01)
    process[killed].communicate(timeout=PATIENCE)
    assert process[killed].returncode == -signal.SIGKILL
    printed, errors = process[stopped].communicate(timeout=PATIENCE)
    assert (process[stopped].returncode, printed) == (130, '')
    assert errors.splitlines()[-1] == 'interrupted: go on with --resume'
    assert 'Traceback' not in errors
    pack_coco(img_dir, ann_file, whole)
    for out in (killed, stopped):
        assert not out.exists()
        pack_coco(img_dir, ann_file, out, resume=True)
        assert records(out) == records(whole)
