"""A float teacher beside the model while QAT trains it."""
from typing import Optional

from mmengine.hooks import Hook

from mmdet_bpu.engine.teacher import KEY, Teacher
from mmdet_bpu.families.detector_path import device_of
from mmdet_bpu.quantization import quantization_of
from mmdet_bpu.quantization.distillation.supervision import Supervision


class DistillationHook(Hook):
    """Let training learn from a teacher, and a resumed run from the same one.

    What is learned is computed in the detector's own ``forward``, so DDP and AMP see it as they see the
    stock losses.

    Args:
        teacher (Teacher): Of the run.
        supervision (Supervision): What is learned of it.
        given (str, optional): ``bpu.qat.distill.teacher``.
    """

    def __init__(self, teacher: Teacher, supervision: Supervision, given: Optional[str] = None) -> None:
        self.teacher, self.supervision, self.given = teacher, supervision, given

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Read the teacher that the interrupted run had."""
        if runner.is_training and runner.is_resumed:
            self.teacher.read_again(checkpoint, str(runner._load_from), self.given)

    def before_train(self, runner) -> None:
        """Teach from here on."""
        quant = quantization_of(runner.model)
        self.supervision.teacher.to(device_of(runner.model))
        quant.supervision = self.supervision

    def after_train(self, runner) -> None:
        """Leave a model behind that computes its stock losses."""
        quantization_of(runner.model).supervision = None

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Say which teacher it is."""
        checkpoint[KEY] = dict(self.teacher.record)
