"""The one config key of ours, ``bpu``: its fields, their defaults and their validation.

Every field is a row of :data:`FIELDS`. A message names the field, what was expected and what was
found; an unknown field is refused with the closest known one. Observers are built, as a prepared
model will. What a valid section says is one frozen :class:`BpuSettings`.
"""
import copy
from dataclasses import dataclass, fields
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from mmdet_bpu.compiler.march import DEFAULT_MARCH, MARCHES
from mmdet_bpu.engine.qat_settings import QAT_FIELDS, QATSettings, qat_settings
from mmdet_bpu.engine.setting_fields import Field, is_count, one_of, validate_section
from mmdet_bpu.engine.stage_names import (EXECUTABLE_STAGES, FLOAT, QUANTIZED_STAGES, STAGES,
                                          TRAINING_STAGES)
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.camera_format import NAMES, check_camera_format
from mmdet_bpu.families.input_shape import INPUT_SHAPE, is_input_shape
from mmdet_bpu.families.picture_format import INPUT_FORMATS
from mmdet_bpu.families.picture_resize import LETTERBOX, STRETCH
from mmdet_bpu.quantization.observers import (DEFAULT_OBSERVER, OBSERVERS, check_criterion,
                                              check_observer)
from mmdet_bpu.quantization.qconfig import WHOLE
from mmdet_bpu.quantization.repairs import BATCHES, BLOCK, LAYER
from mmdet_bpu.quantization.rounding import ITERATIONS
from mmdet_bpu.quantization.rules import check_rules
from mmdet_bpu.runtime.camera import FORMATS

__all__ = ['BpuSettings', 'CalibrationSettings', 'EXECUTABLE_STAGES', 'FIELDS', 'STAGES',
           'TRAINING_STAGES', 'validate_settings']


@dataclass(frozen=True)
class CalibrationSettings:
    """``bpu.calibration``.

    Attributes:
        observer (str | dict): Name of an observer, or its config.
        num_batches (int): Batches over all processes together, so that the result does not depend
            on their number.
        weight_observer (str | dict): How far the integers of weights reach.
        equalize (bool): Whether channels between two products are given ranges that suit both.
        adaround (bool | int | dict): Whether weights are rounded as products err least; how many
            iterations learn it, or how; see :func:`~mmdet_bpu.quantization.repairs.rounding_of`.
        bias_correction (bool): Whether the mean error of products is taken off their biases.
    """
    observer: Union[str, Dict[str, Any]]
    num_batches: int
    weight_observer: Union[str, Dict[str, Any]]
    equalize: bool
    adaround: Union[bool, int, Dict[str, Any]]
    bias_correction: bool


@dataclass(frozen=True)
class BpuSettings:
    """``bpu``, validated. Where the config's test pipeline decides, None means: not read yet.

    Attributes:
        stage (str): One of :data:`mmdet_bpu.engine.stage_names.STAGES`.
        march (str): March name.
        input_shape (tuple[int, int] | None): (height, width) of the deployed input, px.
        input_format (str | dict | None): Channels of the deployed input, e.g. ``'rgb'``, or what
            its camera gives.
        resize (str | None): ``'stretch'`` or ``'letterbox'``.
        qconfig (tuple[dict]): Rules before the default template.
        deploy_preprocessing (bool): Whether data comes as the deployed model gets it.
        calibration (CalibrationSettings): How activations are observed.
        qat (QATSettings): How the quantized model is trained.
    """
    stage: str
    march: str
    input_shape: Optional[Tuple[int, int]]
    input_format: Union[str, Dict[str, str], None]
    resize: Optional[str]
    qconfig: Tuple[Dict[str, Any], ...]
    deploy_preprocessing: bool
    calibration: CalibrationSettings
    qat: QATSettings

    @property
    def is_quantized(self) -> bool:
        """bool: Whether the model of this stage has fake quantizers."""
        return self.stage in QUANTIZED_STAGES

    @property
    def is_executable(self) -> bool:
        """bool: Whether the network of this stage is an integer executable."""
        return self.stage in EXECUTABLE_STAGES

    def as_dict(self) -> Dict[str, Any]:
        """The settings as plain data; :func:`validate_settings` of it gives them back."""
        plain = {field.name: copy.deepcopy(getattr(self, field.name)) for field in fields(self)}
        return dict(plain, qconfig=list(plain['qconfig']), calibration=vars(plain['calibration']),
                    qat=self.qat.as_dict())


def _is_rule_list(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(rule, Mapping) for rule in value)


ADAROUND_FIELDS: Dict[str, Field] = {
    'by': one_of((LAYER, BLOCK), LAYER),
    'iterations': Field('a positive integer', is_count, ITERATIONS),
    'batches': Field('a positive integer', is_count, BATCHES),
}

FIELDS: Dict[str, Any] = {
    'stage': one_of(STAGES),
    'march': one_of(tuple(MARCHES), DEFAULT_MARCH),
    # These three default to what the config's own test pipeline and data preprocessor do.
    'input_shape': Field(INPUT_SHAPE, is_input_shape),
    'input_format': Field(
        'one of ' + ', '.join(map(repr, (*INPUT_FORMATS, *NAMES))) + ', or a dict with one of '
        + ', '.join(map(repr, FORMATS)) + ' as its format',
        lambda value: value in (*INPUT_FORMATS, *NAMES) if isinstance(value, str)
        else isinstance(value, Mapping), None, check_camera_format),
    'resize': one_of((STRETCH, LETTERBOX)),
    'qconfig': Field('a list of rules (dicts)', _is_rule_list, (), check_rules),
    'deploy_preprocessing': Field(
        'True, False, or None (every stage but float)',
        lambda value: value is None or isinstance(value, bool)),
    'calibration': {
        'observer': Field(
            'one of ' + ', '.join(map(repr, sorted(OBSERVERS.module_dict)))
            + ', or a dict with one of them as its type',
            lambda value: isinstance(value, (str, Mapping)), DEFAULT_OBSERVER, check_observer),
        'num_batches': Field('a positive integer', is_count, 100),
        'weight_observer': Field(
            'the name of an observer that reads statistics, or a dict with it as its type',
            lambda value: isinstance(value, (str, Mapping)), WHOLE, check_criterion),
        'equalize': Field('True or False', lambda value: isinstance(value, bool), False),
        'adaround': Field('True, False, a positive number of iterations, or a dict with '
                          + ', '.join(ADAROUND_FIELDS), lambda value: isinstance(value, Mapping)
                          or isinstance(value, bool) or is_count(value), False, within=ADAROUND_FIELDS),
        'bias_correction': Field('True or False', lambda value: isinstance(value, bool), False),
    },
    'qat': QAT_FIELDS,
}


def validate_settings(bpu: Any) -> BpuSettings:
    """Check the config key ``bpu`` and fill in the defaults that do not depend on the config.

    Args:
        bpu (Mapping): What the config holds under ``bpu``; ``stage`` is required.

    Raises:
        BpuError: A field is unknown, absent or holds a value of the wrong kind.
    """
    values = validate_section(bpu, FIELDS, 'bpu')
    if values['deploy_preprocessing'] is None:
        values['deploy_preprocessing'] = values['stage'] != FLOAT
    if values['stage'] != FLOAT and not values['deploy_preprocessing']:
        raise BpuError("field bpu.deploy_preprocessing: expected True or None beyond the 'float' "
                       f"stage, found False with bpu.stage = {values['stage']!r}; the quantized "
                       'graph has one fixed input shape')
    if values['input_shape'] is not None:
        values['input_shape'] = tuple(values['input_shape'])
    return BpuSettings(**dict(values, qconfig=tuple(values['qconfig']),
                              calibration=CalibrationSettings(**values['calibration']),
                              qat=qat_settings(values['qat'])))
