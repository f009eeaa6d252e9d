"""The ``bpu`` key: defaults, and messages that name field, expectation and what was found."""
from dataclasses import FrozenInstanceError

import pytest

from mmdet_bpu.compiler.march import MARCHES
from mmdet_bpu.engine.settings import FIELDS, CalibrationSettings, validate_settings
from mmdet_bpu.errors import BpuError


def test_absent_fields_get_the_reference_recipe():
    settings = validate_settings(dict(stage='calibration'))
    assert settings.march == 'nash-e'
    assert settings.calibration == CalibrationSettings(observer='mse', num_batches=100)
    assert set(settings.as_dict()) == set(FIELDS)


def test_what_the_test_pipeline_decides_is_left_open():
    settings = validate_settings(dict(stage='qat'))
    assert settings.input_shape is settings.input_format is settings.resize is None


def test_deploy_preprocessing_is_on_beyond_float_only():
    assert not validate_settings(dict(stage='float')).deploy_preprocessing
    assert validate_settings(dict(stage='float', deploy_preprocessing=True)).deploy_preprocessing
    for stage in ('calibration', 'qat', 'int', 'hbm'):
        assert validate_settings(dict(stage=stage)).deploy_preprocessing


def test_every_march_that_there_is_may_be_chosen():
    assert [validate_settings(dict(stage='int', march=march)).march for march in MARCHES] \
        == list(MARCHES)


def test_settings_do_not_change():
    settings = validate_settings(dict(stage='qat', qconfig=[dict(site='*', dtype='int16')]))
    with pytest.raises(FrozenInstanceError):
        settings.march = 'nash-m'
    settings.as_dict()['qconfig'][0]['dtype'] = 'int8'
    assert settings.qconfig[0]['dtype'] == 'int16'


def test_an_observer_may_have_arguments():
    observer = dict(type='mse')
    settings = validate_settings(dict(stage='qat', calibration=dict(observer=observer)))
    assert settings.calibration.observer == observer


def test_validating_leaves_the_config_alone_and_is_idempotent():
    bpu = dict(stage='qat', input_shape=[64, 96], qconfig=[dict(site='*', dtype='int16')])
    settings = validate_settings(bpu)
    assert bpu['input_shape'] == [64, 96]
    assert settings.input_shape == (64, 96)
    assert validate_settings(settings.as_dict()) == settings


@pytest.mark.parametrize('bpu, words', [
    (dict(stage='qat', marsh='nash-e'), ['bpu.marsh', 'did you mean bpu.march?']),
    (dict(stage='qat', calibration=dict(num_batch=3)),
     ['bpu.calibration.num_batch', 'did you mean bpu.calibration.num_batches?']),
    (dict(stage='qat', zzz=1), ['bpu.zzz', 'known: stage, march']),
    (dict(stage='qat', march='nash-x'), ['bpu.march', "'nash-e'", "'nash-x'"]),
    (dict(stage='qat', input_shape=(800, )), ['bpu.input_shape', '(height, width)', '(800,)']),
    (dict(stage='qat', input_shape=(0, 5)), ['bpu.input_shape', '(0, 5)']),
    (dict(stage='qat', input_format='nv12'), ['bpu.input_format', "'rgb'", "'nv12'"]),
    (dict(stage='qat', resize='crop'), ['bpu.resize', "'stretch', 'letterbox'", "'crop'"]),
    (dict(stage='qat', qconfig=dict(site='*')), ['bpu.qconfig', 'a list of rules']),
    (dict(stage='qat', calibration=dict(num_batches=True)),
     ['num_batches', 'positive integer', 'True']),
    (dict(stage='qat', calibration=dict(observer='mx')),
     ['calibration.observer', "'minmax'", "'mx'"]),
    (dict(stage='qat', calibration=3), ['bpu.calibration', 'expected a dict', '3']),
    (dict(stage='train'), ['bpu.stage', "'float'", "'train'"]),
    (dict(), ['bpu.stage', 'None']),
    (dict(stage='qat', deploy_preprocessing=False), ['bpu.deploy_preprocessing', 'False']),
    ('qat', ['bpu', 'expected a dict', "'qat'"]),
])
def test_a_bad_field_is_named_with_what_was_expected_and_found(bpu, words):
    with pytest.raises(BpuError) as error:
        validate_settings(bpu)
    for word in words:
        assert word in str(error.value)
