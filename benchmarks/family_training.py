"""A detector of the digits through every stage, and the float model that it is measured against.

float -> calibration -> QAT -> integers, and float -> control: as many steps of float training with
the recipe that ``--stage qat`` gives, which differs from QAT by its loop alone. Steps are those of
``tools/demo.py``, used again once they are there.
"""
import sys
from pathlib import Path
from typing import Dict, List, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tools'))

from demo import Demo  # noqa: E402

CALIBRATION = ['bpu.calibration.num_batches=25']  # 200 images
STEPS = 188  # of an epoch: 1,500 images, 8 at a time
EPOCHS = 1  # of QAT and of the control
# The stage's own recipe, 6 epochs with the decay at 5, on fewer steps.
SCHEDULE = [f'train_cfg.max_epochs={EPOCHS}', f'train_cfg.val_interval={EPOCHS}',
            'param_scheduler.0.by_epoch=False', f'param_scheduler.0.end={STEPS * EPOCHS}',
            f'param_scheduler.0.milestones=[{STEPS * EPOCHS * 5 // 6}]']
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

    def measure(self) -> Dict[str, dict]:
        """Run what is not there yet; mAP and mAP50 of each stage."""
        as_deployed = ['--deploy-preprocessing']
        trained = self.train('float', self.config)
        found = {'float': self.test('float', self.config, trained, as_deployed)}
        calibrated = self.train('calibration', self.config, trained, ['--stage', 'calibration'],
                                CALIBRATION)
        found['calibration'] = self.test('calibration', self.config, calibrated)
        quantized = self.train('qat', self.config, calibrated, ['--stage', 'qat'], SCHEDULE)
        found['qat'] = self.test('qat', self.config, quantized)
        found['int'] = self.test('int', self.config, quantized)
        control = self.train('float_control', self.config, trained, ['--stage', 'qat'],
                             [*SCHEDULE, *AS_FLOAT])
        found['float_control'] = self.test('float_control', self.config, control, as_deployed)
        return found
