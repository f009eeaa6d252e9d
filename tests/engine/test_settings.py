"""The ``bpu`` key: defaults, and messages that name field, expectation and what was found."""
from dataclasses import FrozenInstanceError

import pytest

from mmdet_bpu.compiler.march import MARCHES
from mmdet_bpu.engine.settings import FIELDS, CalibrationSettings, validate_settings
from mmdet_bpu.errors import BpuError


def test_absent_fields_get_the_reference_recipe():
    settings = validate_settings(dict(stage='calibration'))
    assert settings.march == 'nash-e'
    assert settings.calibration == CalibrationSettings(
        observer='mse', num_batches=100, weight_observer='minmax', equalize=False,
        adaround=False, bias_correction=False)
    assert not settings.qat.closed
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
    (dict(stage='qat', input_format='nv21'), ['bpu.input_format', "'rgb'", "'nv12'", "'nv21'"]),
    (dict(stage='qat', input_format=12), ['bpu.input_format', "'nv12'", 'found 12']),
    (dict(stage='qat', input_format=dict(format='rgb')), ['bpu.input_format.format', "'nv12'"]),
    (dict(stage='qat', input_format=dict(range='full')), ['bpu.input_format.format', 'found none']),
    (dict(stage='qat', input_format=dict(format='nv12', matrix='bt2020')),
     ['bpu.input_format.matrix', "'bt601', 'bt709'", "'bt2020'"]),
    (dict(stage='qat', input_format=dict(format='nv12', colour='yuv')),
     ['bpu.input_format.colour', 'known: format, range, matrix, model']),
    (dict(stage='qat', input_format=dict(format='gray', model='yuv')),
     ['bpu.input_format.model', "'rgb'", "'gray'"]),
    (dict(stage='qat', resize='crop'), ['bpu.resize', "'stretch', 'letterbox'", "'crop'"]),
    (dict(stage='qat', qconfig=dict(site='*')), ['bpu.qconfig', 'a list of rules']),
    (dict(stage='qat', calibration=dict(num_batches=True)),
     ['num_batches', 'positive integer', 'True']),
    (dict(stage='qat', qat=dict(closed=1)), ['bpu.qat.closed', 'True or False', 'found 1']),
    (dict(stage='qat', calibration=dict(observer='mx')),
     ['calibration.observer', "'minmax'", "'mx'"]),
    (dict(stage='qat', calibration=dict(observer=dict(type='minmax', candidates=8))),
     ['field bpu.calibration.observer: minmax refuses its arguments', "'candidates'"]),
    (dict(stage='qat', calibration=dict(weight_observer='mx')),
     ['bpu.calibration.weight_observer', "'minmax'", "'mx'"]),
    (dict(stage='qat', calibration=dict(equalize='yes')),
     ['bpu.calibration.equalize', 'True or False', "'yes'"]),
    (dict(stage='qat', calibration=dict(adaround=dict(by='row'))),
     ['bpu.calibration.adaround.by', "one of 'layer', 'block'", "'row'"]),
    (dict(stage='qat', calibration=dict(adaround=dict(by='block', batches=0))),
     ['bpu.calibration.adaround.batches', 'a positive integer', '0']),
    (dict(stage='qat', calibration=dict(adaround=dict(block=True))),
     ['unknown field bpu.calibration.adaround.block', 'by, iterations, batches']),
    (dict(stage='qat', calibration=dict(adaround=-1)),
     ['bpu.calibration.adaround', 'a positive number of iterations', '-1']),
    (dict(stage='qat', calibration=dict(adaround=0)),
     ['bpu.calibration.adaround', 'a positive number of iterations', 'found 0']),
    (dict(stage='qat', calibration=dict(observer=dict(type='mse', bins=7))),
     ['bpu.calibration.observer', 'bins: expected an even number from 2 to 65536, found 7']),
    (dict(stage='qat', calibration=dict(observer=dict(type='mse', bins=1 << 40))), ['bins']),
    (dict(stage='qat', calibration=dict(observer=dict(type='mse', candidates=0.5))),
     ['candidates: expected a whole number', '0.5']),
    (dict(stage='qat', calibration=dict(observer=dict(type=['mse']))), ["'minmax', 'mix'"]),
    (dict(stage='qat', qconfig=[dict(site='*', dtype=[])]), ['bpu.qconfig[0].dtype', '[]']),
    (dict(stage='qat', qconfig=[{'site': '*', 3: 1, None: 2}]),
     ['bpu.qconfig[0]: unknown field 3']),
    (dict(stage='qat', qconfig=[dict(site='*', scale=10**400)]), ['scale', '2**-60 to 2**60']),
    (dict(stage='qat', qconfig=[dict(site='*', scale=1e-300)]), ['scale', '1e-300']),
    (dict(stage='qat', qconfig=[dict(site='*', observer=dict(type='mse', bins=7))]),
     ['field bpu.qconfig[0].observer', 'even number']),
    (dict(stage='qat', input_shape=(64, 10**12)), ['bpu.input_shape', 'none above 16384']),
    (dict(stage='qat', input_shape=(16384, 16384)), ['at most 33554432 px']),
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


def test_an_observer_of_a_user_refuses_its_arguments_in_its_own_words():
    from mmdet_bpu.quantization.criteria import MinMaxObserver
    from mmdet_bpu.quantization.observers import OBSERVERS

    @OBSERVERS.register_module(name='odd', force=True)
    class OddObserver(MinMaxObserver):
        def __init__(self, share):
            super().__init__()
            self.share = 1 / share

    try:
        assert validate_settings(dict(stage='qat', calibration=dict(
            observer=dict(type='odd', share=0.5)))).calibration.observer['share'] == 0.5
        with pytest.raises(BpuError, match='odd refuses its arguments: division by zero'):
            validate_settings(dict(stage='qat', calibration=dict(
                observer=dict(type='odd', share=0))))
    finally:
        OBSERVERS.module_dict.pop('odd')
