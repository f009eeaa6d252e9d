"""What of a QAT run depends on ``bpu.qat.labels`` and ``bpu.qat.distill``."""
from typing import Optional

from mmengine.logging import print_log
from torch import nn

from mmdet_bpu.engine.hooks.distillation_hook import DistillationHook
from mmdet_bpu.engine.qat_settings import QATSettings
from mmdet_bpu.engine.teacher import FIELD, Teacher
from mmdet_bpu.errors import BpuError, first_names
from mmdet_bpu.quantization.distillation.reached import freeze_unreached
from mmdet_bpu.quantization.distillation.supervision import Supervision, matching_modules


def train_reached_alone(model: nn.Module, settings: QATSettings) -> None:
    """Without labels, freeze what nothing is learned for, in place; before DDP and optimizer see it.

    Args:
        model (nn.Module): The prepared detector.
        settings (QATSettings): Of the run.

    Raises:
        BpuError: A glob of ``distill.modules`` matches no module.
    """
    if settings.labels:
        return
    unreached = freeze_unreached(model, feature_modules(model, settings))
    if unreached:
        print_log(f'{len(unreached)} parameters stay as they are, because nothing that is deployed depends on '
                  f'them: {first_names(unreached)}', 'current')


def feature_modules(model: nn.Module, settings: QATSettings) -> list:
    """Paths of the modules whose features are compared."""
    distill = settings.distill
    return matching_modules(model, distill.modules) if distill and distill.features else []


def distillation_hook(model: nn.Module, stock: nn.Module, settings: QATSettings,
                      source: Optional[str]) -> DistillationHook:
    """The hook by which a run learns from its teacher.

    Args:
        model (nn.Module): The prepared detector.
        stock (nn.Module): Another one as its config builds it: the teacher, in place.
        settings (QATSettings): Of the run.
        source (str, optional): Checkpoint that the run starts from; None for a resumed one, whose
            own checkpoint says which teacher it had.

    Raises:
        BpuError: The teacher cannot be read or does not fit.
    """
    distill, teacher = settings.distill, Teacher(stock)
    supervision = Supervision(model, teacher.model, settings.labels, distill.outputs,
                              distill.features, feature_modules(model, settings))
    if source is not None:
        try:
            teacher.read(distill.teacher or source)
        except BpuError as error:
            if distill.teacher:
                raise BpuError(f'field {FIELD}: {error}') from error
            raise
        print_log(f'float teacher: weights of {teacher.record["path"]}', 'current')
    return DistillationHook(teacher, supervision, distill.teacher)
