"""A detector of the digits through every stage, and the float model that it is measured against.

float -> calibration -> QAT -> integers, and float -> control: as many steps of float training with
the recipe that ``--stage qat`` gives, which differs from QAT by its loop alone. Steps are those of
``tools/demo.py``: commands in processes of their own, used again once they are there. Here they are forked
from one that has imported mmdet, which takes longer than many of them.
"""
import multiprocessing
import os
import runpy
import sys
from pathlib import Path
from typing import Dict, List, Sequence

from mmdet_bpu.errors import BpuError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tools'))

from demo import ENVIRONMENT, Demo, last_lines  # noqa: E402

os.environ.update(ENVIRONMENT)  # before torch is imported
# Asking CUDA itself whether it is there would leave it unusable in the forks.
os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')

CALIBRATION = ['bpu.calibration.num_batches=25']  # 200 images
STEPS = 188  # of an epoch: 1,500 images, 8 at a time
EPOCHS = 1  # of QAT and of the control
# The stage's own recipe, 6 epochs with the decay at 5, on fewer steps.
SCHEDULE = [f'train_cfg.max_epochs={EPOCHS}', f'train_cfg.val_interval={EPOCHS}',
            'param_scheduler.0.by_epoch=False', f'param_scheduler.0.end={STEPS * EPOCHS}',
            f'param_scheduler.0.milestones=[{STEPS * EPOCHS * 5 // 6}]']
# Each stage is evaluated by a command of its own.
UNTESTED = ['train_cfg.val_begin=1000']
AS_FLOAT = ['bpu.stage=float', 'bpu.deploy_preprocessing=True', 'val_cfg.type=ValLoop',
            'train_cfg.type=EpochBasedTrainLoop']


class FamilyTraining(Demo):
    """The stages of one family.

    Args:
        family (str): Its config is ``configs/demo/digits_FAMILY.py``.
        folder (Path): Where its stages are written.
        data (Path): Where the packed digits are.
        overrides (Sequence[str]): Of the config, ``KEY=VALUE``, in every step. Defaults to none.
    """

    def __init__(self, family: str, folder: Path, data: Path,
                 overrides: Sequence[str] = ()) -> None:
        super().__init__(folder, data)
        folder.mkdir(parents=True, exist_ok=True)
        self.config, self.overrides = f'digits_{family}.py', list(overrides)

    def options(self) -> List[str]:
        """The data, then the overrides."""
        return [*super().options(), *self.overrides]

    def run(self, name: str, tool: str, *arguments: object) -> None:
        """Run a tool in a fork of this process; its output goes to ``<name>.log``."""
        import mmdet_bpu.apis.training  # noqa: F401
        import mmdet_bpu.engine.runner  # noqa: F401
        import mmdet_bpu.registration  # noqa: F401
        log = self.folder / f'{name}.log'
        command = [str(ROOT / 'tools' / tool), *map(str, arguments)]
        process = multiprocessing.get_context('fork').Process(
            target=_run_as_main, args=(command, log))
        process.start()
        process.join()
        if process.exitcode:
            raise BpuError(f'step {name} ended with exit code {process.exitcode}; its output is in '
                           f'{log}:\n{last_lines(log)}')

    def measure(self) -> Dict[str, dict]:
        """Run what is not there yet; mAP and mAP50 of each stage."""
        as_deployed = ['--deploy-preprocessing']
        trained = self.train('float', self.config, overrides=UNTESTED)
        found = {'float': self.test('float', self.config, trained, as_deployed)}
        calibrated = self.train('calibration', self.config, trained, ['--stage', 'calibration'],
                                CALIBRATION)
        found['calibration'] = self.test('calibration', self.config, calibrated)
        quantized = self.train('qat', self.config, calibrated, ['--stage', 'qat'],
                               [*SCHEDULE, *UNTESTED])
        found['qat'] = self.test('qat', self.config, quantized)
        found['int'] = self.test('int', self.config, quantized)
        control = self.train('float_control', self.config, trained, ['--stage', 'qat'],
                             [*SCHEDULE, *AS_FLOAT, *UNTESTED])
        found['float_control'] = self.test('float_control', self.config, control, as_deployed)
        return found


def _run_as_main(command: List[str], log: Path) -> None:
    """Become the command, with its output in ``log``."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    # Where output is captured, as in tests, these are no longer the two streams.
    sys.stdout, sys.stderr = (open(stream, 'w', buffering=1, closefd=False) for stream in (1, 2))
    sys.argv = command
    runpy.run_path(command[0], run_name='__main__')
