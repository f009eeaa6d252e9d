"""The main job on embedded data: float -> calibration -> QAT -> integers -> HBIR -> .hbm.

    tools/demo.py              all steps, then one table and work_dirs/demo/summary.json
    tools/demo.py --control    then also the float model trained on for QAT's steps

Each step is one of the commands that a user runs on data of their own, forked from this process,
which has imported mmdet: that takes longer than many of them. What is there already is used again.
The data are handwritten digits pasted on backgrounds: 1,500 images to train on, 200 to evaluate.
"""
import argparse
import ctypes
import fcntl
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Sequence, TextIO

from mmdet_bpu.errors import BpuError, exit_on_error
from mmdet_bpu.output_folder import write_json

TOOLS = Path(__file__).resolve().parent
CONFIGS = TOOLS.parent / 'configs' / 'demo'
STAGES = ('float', 'calibration', 'qat', 'int', 'hbm')
PICTURES = 8
# Each stage is evaluated by a command of its own, not by its training too.
UNTESTED = 'train_cfg.val_begin=1000'
# Forking is safe with the libraries of Linux; those of macOS may crash behind it.
FORKS = sys.platform == 'linux'
# Folders that this process works in, and the files that are locked in them; forks hold them too.
LOCKED: Dict[Path, TextIO] = {}
PR_SET_PDEATHSIG = 1
# Read when torch is imported, here or in a command's own process.
# Waiting threads sleep: spinning ones take a shared machine's cores from those that work.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
# Asking CUDA itself whether it is there would leave it unusable in the forks.
os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')


class Demo:
    """Runs the steps in ``folder`` and keeps what they took and gave.

    Args:
        folder (Path): Where everything is written.
        data (Path): Where the data set is, or is made.

    Raises:
        BpuError: Another process is at work in ``folder``, or its notes are damaged.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        lock(folder)
        self.folder, self.data = folder, data
        self.state_file = folder / 'steps.json'
        self.state: Dict[str, dict] = {}
        self.ran = False  # what follows a step that ran is made of its result: it runs too
        if self.state_file.is_file():
            try:
                self.state = json.loads(self.state_file.read_text(encoding='utf-8'))
            except ValueError as error:
                raise BpuError(f'{self.state_file} is damaged ({error}); remove it to make again what it '
                               f'says is there, or {folder} to start again') from None

    def step(self, name: str, result: Path, action: Callable[[], dict]) -> dict:
        """Run ``action`` unless ``result`` is there from an earlier run; returns what it gave."""
        if not self.ran and name in self.state and result.exists():
            print(f'[{name}] reused: {result}', flush=True)
            return self.state[name]
        print(f'[{name}] ...', flush=True)
        self.ran = True
        if self.state.pop(name, None) is not None:  # or a killed run leaves it to the next as done
            write_json(self.state_file, self.state)
        began = time.time()
        given = action() or {}
        if not result.exists():
            raise BpuError(f'step {name} ended without writing {result}')
        self.state[name] = dict(given, seconds=round(time.time() - began, 1))
        write_json(self.state_file, self.state)
        print(f'[{name}] done in {self.state[name]["seconds"]:.0f} s', flush=True)
        return self.state[name]

    def run(self, name: str, tool: str, *arguments: object) -> None:
        """Run a tool in a process of its own; its output goes to ``<name>.log``."""
        log = self.folder / f'{name}.log'
        command = [str(TOOLS / tool), *map(str, arguments)]
        code = self.execute(name, command, log)
        if code:
            raise BpuError(f'step {name} ended with exit code {code}: {" ".join(command)}\n'
                           f'{last_lines(log)}\nThe whole output is in {log}')

    def execute(self, name: str, command: Sequence[str], log: Path) -> int:
        """Run the command of a step in a fork of this process, or on its own; its exit code."""
        if not FORKS:
            return execute_alone([sys.executable, *command], log)
        from mmdet_bpu import apis
        getattr(apis, 'train')  # imports what every command needs, once for all forks
        process = multiprocessing.get_context('fork').Process(
            target=become, args=(command, log, os.getpid()))
        process.start()
        try:
            process.join()
        finally:  # an interrupt may have come to this process alone
            process.terminate()
        return process.exitcode

    # Steps

    def options(self) -> List[str]:
        """Config overrides that point every command at the demo's data."""
        train, val = self.data / 'train_lmdb', self.data / 'val_lmdb'
        return [
            '--cfg-options', f'train_dataloader.dataset.lmdb={train}',
            f'val_dataloader.dataset.lmdb={val}', f'test_dataloader.dataset.lmdb={val}',
            f'val_evaluator.lmdb={val}', f'test_evaluator.lmdb={val}'
        ]

    def make_data(self) -> None:
        """Digits, then LMDB."""
        digits = self.data / 'images'
        if not (self.data / 'val_lmdb').exists():
            self.step('digits', digits / 'annotations',
                      lambda: self.run('digits', 'make_digits.py', '--out', digits))
        for split in ('train', 'val'):
            annotations = digits / 'annotations' / f'{split}.json'
            out = self.data / f'{split}_lmdb'
            self.step(
                f'pack_{split}', out, lambda: self.run(
                    f'pack_{split}', 'pack_coco_lmdb.py', '--img-dir', digits / split, '--ann',
                    annotations, '--out', out, '--overwrite'))

    def train(self, stage: str, config: str, source: Path = None,
              arguments: Sequence[str] = (), overrides: Sequence[str] = ()) -> Path:
        """Train one stage; returns its checkpoint.

        Args:
            stage (str): Name of the step's folder.
            config (str): File below ``configs/demo``.
            source (Path): Checkpoint to start from. Defaults to None: the first stage.
            arguments (Sequence[str]): More of the command's.
            overrides (Sequence[str]): More of the config's, ``KEY=VALUE``.
        """
        work_dir = self.folder / stage
        checkpoint = work_dir / 'final.pth'
        resume = ['--resume'] if self.was_interrupted(work_dir, checkpoint) else []
        load = ['load_from=' + str(source)] if source else []

        def action() -> None:
            self.run(f'train_{stage}', 'train.py', CONFIGS / config, '--work-dir', work_dir,
                     *arguments, *resume, *self.options(), UNTESTED, *load, *overrides)
            written = (work_dir / 'last_checkpoint').read_text(encoding='utf-8').strip()
            os.replace(written, checkpoint)

        self.step(f'train_{stage}', checkpoint, action)
        return checkpoint

    def was_interrupted(self, work_dir: Path, checkpoint: Path) -> bool:
        """Whether a training that began from what is there now has checkpoints but no end."""
        newest = work_dir / 'last_checkpoint'
        return (not self.ran and not checkpoint.exists() and newest.is_file()
                and Path(newest.read_text(encoding='utf-8').strip()).is_file())

    def test(self, stage: str, config: str, model: Path, arguments: Sequence[str] = (),
             evaluated: str = None) -> dict:
        """Evaluate one step's model as a stage (by default its own, else float); its metrics."""
        out = self.folder / stage / 'metrics.json'
        evaluated = evaluated or (stage if stage in STAGES else 'float')

        def action() -> dict:
            self.run(f'test_{stage}', 'test.py', CONFIGS / config, model, '--stage', evaluated,
                     '--work-dir', self.folder / stage / 'test', '--out', out, *arguments,
                     *self.options())
            metrics = json.loads(out.read_text(encoding='utf-8'))
            if not metrics:  # mmdet has none where no box was found
                return dict(mAP=0.0, mAP50=0.0)
            return dict(mAP=metrics['coco/bbox_mAP'], mAP50=metrics['coco/bbox_mAP_50'])

        return self.step(f'test_{stage}', out, action)

    def deploy(self, checkpoint: Path) -> Path:
        """Export and compile; returns the folder of the artefacts."""
        out = self.folder / 'deploy'
        self.step('deploy', out / 'model.hbm', lambda: self.run(
            'deploy', 'deploy_bpu.py', CONFIGS / 'digits_qat.py', checkpoint, '--out', out))
        return out

    def compare(self, artifacts: Path, checkpoint: Path) -> dict:
        """Integer against compiled on all images, QAT against integer op by op."""
        out = self.folder / 'comparison.json'

        def action() -> dict:
            self.run('compare', 'compare_stages.py', CONFIGS / 'digits_qat.py', checkpoint,
                     '--int', artifacts / 'model.int.mlir', '--hbm', artifacts / 'model.hbm',
                     '--out', out, *self.options())
            return json.loads(out.read_text(encoding='utf-8'))

        return self.step('compare', out, action)

    def draw(self, artifacts: Path, float_checkpoint: Path) -> Path:
        """Float and integer detections side by side."""
        out = self.folder / 'pictures'
        images = sorted((self.data / 'images' / 'val').iterdir())[:PICTURES]
        self.step('pictures', out, lambda: self.run(
            'pictures', 'infer.py', float_checkpoint, *images, '--config',
            CONFIGS / 'digits_float.py', '--compare', artifacts / 'model.hbm', '--out', out))
        return out


def lock(folder: Path) -> None:
    """Keep other processes out of a folder for as long as this one lives."""
    place = folder.resolve()
    if place in LOCKED:
        return
    try:
        file = open(folder / '.lock', 'w', encoding='utf-8')
    except OSError as error:
        raise BpuError(f'{folder} cannot be written: {error.strerror}; give another folder') from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise BpuError(f'another process is at work in {folder}: wait for its end, or give another '
                       'folder') from None
    LOCKED[place] = file


def become(command: Sequence[str], log: Path, parent: int) -> None:
    """Go on as a Python file with its arguments, with the output in ``log``, while ``parent`` lives."""
    # A step must not go on behind a run that was killed and begun again.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    with open(log, 'wb') as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    # Where output is captured, as in tests, these are no longer the two streams.
    sys.stdout, sys.stderr = (open(stream, 'w', buffering=1, closefd=False) for stream in (1, 2))
    sys.argv = list(command)
    runpy.run_path(command[0], run_name='__main__')


def execute_alone(command: Sequence[str], log: Path) -> int:
    """Run a program with its output in ``log``; its exit code."""
    with open(log, 'wb') as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode


def last_lines(log: Path) -> str:
    """What a failing command said at its end."""
    return '\n'.join(log.read_text(encoding='utf-8', errors='replace').splitlines()[-15:])


def table(rows: Dict[str, dict], seconds: Dict[str, float]) -> str:
    """Stage, mAP, mAP50 and seconds as text."""
    lines = [f'{"stage":<14}{"mAP":>8}{"mAP50":>8}{"seconds":>10}']
    for stage, row in rows.items():
        lines.append(f'{stage:<14}{row["mAP"]:>8.3f}{row["mAP50"]:>8.3f}{seconds[stage]:>10.1f}')
    return '\n'.join(lines)


def summarise(demo: Demo, control: bool) -> dict:
    """Everything measured, as written to ``summary.json``."""
    state = demo.state
    stages = ['float', *(['float_control'] if control else []), *STAGES[1:]]
    metrics = {s: {k: state[f'test_{s}'][k] for k in ('mAP', 'mAP50')} for s in stages}
    took = {s: state[f'test_{s}']['seconds'] + state.get(f'train_{s}', {}).get('seconds', 0)
            for s in stages}
    comparison = state['compare']
    return dict(
        metrics,
        int_equals_hbm=comparison['int_equals_hbm'],
        images_compared=comparison['images'],
        qat_vs_int=comparison['qat_vs_int'],
        seconds=dict(took, all={name: step['seconds'] for name, step in state.items()}),
        artifacts={
            name: str(demo.folder / 'deploy' / name)
            for name in ('model.hbir.mlir', 'model.int.mlir', 'model.hbm', 'model.report.html',
                         'model.report.json')
        })


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/demo'),
                        help='folder of everything that is made (default: work_dirs/demo)')
    parser.add_argument('--data', type=Path, default=Path('data/digits'),
                        help='folder of the data set (default: data/digits)')
    parser.add_argument('--control', action='store_true',
                        help='also train the float model on for QAT\'s steps at QAT\'s rate')
    return parser.parse_args()


@exit_on_error()
def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    demo = Demo(args.out, args.data)
    demo.make_data()
    float_checkpoint = demo.train('float', 'digits_float.py')
    demo.test('float', 'digits_float.py', float_checkpoint)
    calibrated = demo.train('calibration', 'digits_calibration.py', float_checkpoint)
    demo.test('calibration', 'digits_calibration.py', calibrated)
    trained = demo.train('qat', 'digits_qat.py', calibrated)
    demo.test('qat', 'digits_qat.py', trained)
    artifacts = demo.deploy(trained)
    demo.test('int', 'digits_qat.py', artifacts / 'model.int.mlir')
    demo.test('hbm', 'digits_qat.py', artifacts / 'model.hbm')
    demo.compare(artifacts, trained)
    pictures = demo.draw(artifacts, float_checkpoint)
    control = args.control or 'test_float_control' in demo.state
    if control:
        checkpoint = demo.train('float_control', 'digits_float_control.py', float_checkpoint)
        demo.test('float_control', 'digits_float_control.py', checkpoint)
    summary = summarise(demo, control)
    out = args.out / 'summary.json'
    write_json(out, summary)
    stages = {k: v for k, v in summary.items() if isinstance(v, dict) and 'mAP50' in v}
    print(f'\n{table(stages, summary["seconds"])}\n')
    print(f'integer equals compiled on {summary["images_compared"]} images, bit for bit: '
          f'{summary["int_equals_hbm"]}')
    print(f'summary {out}, pictures {pictures}, report {summary["artifacts"]["model.report.html"]}')
    print(f'this run took {time.time() - began:.0f} s')


if __name__ == '__main__':
    main()
