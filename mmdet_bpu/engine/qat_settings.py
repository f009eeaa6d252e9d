"""``bpu.qat``: its fields, their defaults and what they exclude."""
from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from mmdet_bpu.engine.setting_fields import Field, is_weight, one_of
from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization.fake_quant import QUANTIZERS
from mmdet_bpu.quantization.learned_reach import rate_of_reach
from mmdet_bpu.quantization.norm_states import FOLDED, LIVE
from mmdet_bpu.quantization.trained_scales import FIXED, check_quantizer, kind_of


@dataclass(frozen=True)
class DistillSettings:
    """``bpu.qat.distill``.

    Attributes:
        outputs (float): Weight of what the deployed outputs lose against the teacher's.
        features (float): Weight of what the results of modules lose.
        modules (tuple[str]): Globs of those modules' paths.
        teacher (str | None): Checkpoint of a float detector of the same config; None: the one that QAT
            starts from.
    """
    outputs: float = 1.0
    features: float = 0.0
    modules: Tuple[str, ...] = ()
    teacher: Optional[str] = None


@dataclass(frozen=True)
class FreezeSettings:
    """``bpu.qat.freeze_scales``.

    Attributes:
        by (str): ``'epoch'`` or ``'iter'``.
        at (int): The first one, counted from 0, in which scales do not move.
    """
    by: str
    at: int


@dataclass(frozen=True)
class FoldSettings:
    """``bpu.qat.batch_norm`` that says when live batch norms are folded.

    Attributes:
        by (str): ``'epoch'`` or ``'iter'``.
        at (tuple[int]): The first ones, counted from 0, in which a part is folded.
        parts (tuple[str]): Of each of them, a glob of paths of convolutions.
    """
    by: str
    at: Tuple[int, ...]
    parts: Tuple[str, ...]


@dataclass(frozen=True)
class QATSettings:
    """``bpu.qat``.

    Attributes:
        closed (bool): Whether training leaves out the quantizers inside softmax, norms and deformable
            sampling.
        labels (bool): Whether ground truth is trained on.
        distill (DistillSettings | None): What is learned of a float teacher.
        scales (str | dict): What becomes of activation scales.
        weight_reach (str | dict): What becomes of the reaches of weights.
        freeze_scales (FreezeSettings | None): From when on scales and reaches stay.
        batch_norm (str | FoldSettings): ``'folded'`` from the start, ``'live'`` to the end, or live and
            folded step by step.
    """
    closed: bool
    labels: bool = True
    distill: Optional[DistillSettings] = None
    scales: Union[str, Dict[str, Any]] = FIXED
    weight_reach: Union[str, Dict[str, Any]] = FIXED
    freeze_scales: Optional[FreezeSettings] = None
    batch_norm: Union[str, FoldSettings] = FOLDED

    @property
    def scales_move(self) -> bool:
        """bool: Whether scales of activations or reaches of weights do, before they are frozen."""
        return kind_of(self.scales) != FIXED or rate_of_reach(self.weight_reach) is not None

    def as_dict(self) -> Dict[str, Any]:
        """Plain data; :func:`qat_settings` of it gives the settings back."""
        plain = asdict(self)
        if self.distill is not None:
            plain['distill']['modules'] = list(self.distill.modules)
        if isinstance(self.batch_norm, FoldSettings):
            plain['batch_norm'].update(at=list(self.batch_norm.at), parts=list(self.batch_norm.parts))
        return plain


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


DISTILL_FIELDS: Dict[str, Field] = {
    'outputs': Field('a number from 0 on', is_weight, 1.0),
    'features': Field('a number from 0 on', is_weight, 0.0),
    'modules': Field('a list of globs of module paths', lambda value: isinstance(
        value, (list, tuple)) and all(isinstance(glob, str) for glob in value), ()),
    'teacher': Field('the file of a float checkpoint, or None',
                     lambda value: value is None or isinstance(value, str)),
}

FREEZE_FIELDS: Dict[str, Field] = {
    'by': one_of(('epoch', 'iter'), 'epoch'),
    'at': Field('a whole number from 0 on', _is_step, None),
}

FOLD_FIELDS: Dict[str, Field] = {
    'by': one_of(('epoch', 'iter'), 'epoch'),
    'at': Field('a list of whole numbers from 0 on, none below the one before', lambda value: isinstance(
        value, (list, tuple)) and bool(value) and all(map(_is_step, value))
        and list(value) == sorted(value), None),
    'parts': Field('a list of globs of paths of convolutions', lambda value: isinstance(
        value, (list, tuple)) and all(isinstance(glob, str) for glob in value), None),
}

QAT_FIELDS: Dict[str, Any] = {
    'closed': Field('True or False', _is_flag, False),
    'labels': Field('True or False', _is_flag, True),
    'distill': Field(f'None, or a dict with {", ".join(DISTILL_FIELDS)}',
                     lambda value: value is None or isinstance(value, Mapping),
                     within=DISTILL_FIELDS),
    'scales': Field('one of ' + ', '.join(map(repr, sorted(QUANTIZERS.module_dict)))
                    + ', or a dict with one of them as its type',
                    lambda value: isinstance(value, (str, Mapping)), FIXED, check_quantizer),
    'weight_reach': Field("'fixed', 'learned', or a dict with one of them as its type",
                          lambda value: isinstance(value, (str, Mapping)), FIXED, rate_of_reach),
    'freeze_scales': Field("None, or a dict with by ('epoch' or 'iter') and at",
                           lambda value: value is None or isinstance(value, Mapping),
                           within=FREEZE_FIELDS),
    'batch_norm': Field(f"'{FOLDED}', '{LIVE}', or a dict with at, parts and by ('epoch' or 'iter')",
                        lambda value: value in (FOLDED, LIVE) if isinstance(value, str)
                        else isinstance(value, Mapping), FOLDED, within=FOLD_FIELDS),
}


def _fold_settings(value: Union[str, Mapping[str, Any]]) -> Union[str, FoldSettings]:
    if isinstance(value, str):
        return value
    at, parts = value['at'], value['parts']
    if at is None:
        raise BpuError("field bpu.qat.batch_norm.at: expected the epochs or iterations in which a part is "
                       "folded, e.g. [3], found none; 'live' folds nothing in training")
    if parts is None and len(at) == 1:
        parts = ['*']
    if parts is None or len(parts) != len(at):
        raise BpuError(f'field bpu.qat.batch_norm.parts: expected {len(at)} globs, one for each of '
                       f'at={at}, e.g. [\'backbone.*\', \'*\'], found {parts}')
    return FoldSettings(value['by'], tuple(at), tuple(parts))


def qat_settings(values: Mapping[str, Any]) -> QATSettings:
    """The settings of a section whose fields are valid one by one.

    Raises:
        BpuError: Nothing is left to learn from, features of no module are asked for, scales that do
            not move are to be frozen, or parts and times of folding are not as many.
    """
    distill, freeze = values['distill'], values['freeze_scales']
    if freeze is not None:
        if freeze['at'] is None:
            raise BpuError('field bpu.qat.freeze_scales.at: expected the epoch or iteration from which on scales '
                           'stay, e.g. 4, found none')
        freeze = FreezeSettings(**freeze)
    if distill is not None:
        distill = DistillSettings(**dict(distill, modules=tuple(distill['modules'])))
    elif not values['labels']:
        distill = DistillSettings()
    settings = QATSettings(**dict(values, distill=distill, freeze_scales=freeze,
                                  batch_norm=_fold_settings(values['batch_norm'])))
    if freeze is not None and not settings.scales_move:
        raise BpuError("field bpu.qat.freeze_scales: expected None where bpu.qat.scales and "
                       f"bpu.qat.weight_reach are 'fixed': nothing moves, found {values['freeze_scales']}")
    if distill is None:
        return settings
    if distill.features and not distill.modules:
        raise BpuError(f'field bpu.qat.distill.modules: expected globs of the modules whose features '
                       f'bpu.qat.distill.features = {distill.features} compares, found none')
    if not distill.outputs and not distill.features:
        if not settings.labels:
            raise BpuError('field bpu.qat.distill: expected outputs or features above 0 where '
                           'bpu.qat.labels is False, found neither: nothing is left to learn from')
        return replace(settings, distill=None)
    return settings
