"""Files of a family hold the same as ``--stage`` over the stock config that they start from."""
import copy
import functools
import re
from pathlib import Path

import pytest

from mmdet_bpu.engine.stage_names import TRAINING_STAGES
from mmdet_bpu.engine.stages import complete_config, load_config

CONFIGS = Path(__file__).parents[2] / 'configs'
FAMILIES = ('retinanet', 'fcos', 'rtmdet', 'yolox', 'dino')
FILES = sorted(file for family in FAMILIES for file in (CONFIGS / family).glob('*.py'))
_read = functools.cache(load_config)


def load_once(config, stage=None):
    return copy.deepcopy(_read(str(config), stage))


def without_scope(value):
    """mmengine marks what comes from a base of another package."""
    if isinstance(value, dict):
        return {key: without_scope(item) for key, item in value.items() if key != '_scope_'}
    if isinstance(value, (list, tuple)):
        return type(value)(without_scope(item) for item in value)
    return value


def stage_of(file):
    return re.search('_(float|calibration|qat).py', file.name).group(1)


def stock_of(file):
    """What the float file of the same detector inherits from."""
    start = file.with_name(file.name.replace(f'_{stage_of(file)}.py', '_float.py'))
    return re.search(r"_base_ = '(mmdet::.*)'", start.read_text()).group(1)


def test_every_family_has_a_file_for_every_stage():
    for family in FAMILIES:
        assert {stage_of(file) for file in FILES if file.parent.name == family} == set(
            TRAINING_STAGES)


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_a_file_is_the_stage_put_over_the_stock_config(file):
    own, put_over = load_once(file), load_once(stock_of(file), stage_of(file))
    assert without_scope(own.to_dict()) == without_scope(put_over.to_dict())


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_what_a_file_says_of_its_detector_is_so(file):
    """Size, colour order, resize and rate in the docstrings."""
    cfg = load_once(file)
    cfg.bpu.deploy_preprocessing = True
    settings = complete_config(cfg)
    text = ' '.join(file.read_text().split('"""')[1].split())
    height, width = settings.input_shape
    if stage_of(file) == 'float':
        assert f'{height} x {width} px' in text
        assert (settings.resize == 'letterbox') == ('letterboxed' in text)
        assert (settings.input_format == 'bgr') == ('blue first' in text)
    if stage_of(file) == 'qat':
        kind, rate = re.search(r': (\w+) ([\d.e-]+), a tenth', text).groups()
        optimizer = cfg.optim_wrapper.optimizer
        assert (kind, float(rate)) == (optimizer.type, optimizer.lr)
