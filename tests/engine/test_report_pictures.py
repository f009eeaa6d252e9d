"""Test pictures in a deployment's report: what is drawn, and what is said where nothing can be."""
import base64
import copy
import json
import re

import cv2
import numpy as np
import pytest

from mmdet_bpu import apis
from mmdet_bpu.apis.report_pictures import WIDEST, pictures_to_draw, report_pictures
from mmdet_bpu.engine.sample_pictures import sample_pictures
from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.quantization import quantized_graphs

PICTURES = 2


@pytest.fixture(scope='module')
def deployed(staged, random_checkpoints, tmp_path_factory):
    """Folder that was deployed with pictures of the float model too."""
    folder = tmp_path_factory.mktemp('deployed')
    apis.deploy(staged('int', folder), random_checkpoints['calibration'], folder / 'out', backend='sim',
                pictures=PICTURES, float_checkpoint=random_checkpoints['float'])
    return folder / 'out'


def test_each_picture_shows_every_model_side_by_side(deployed):
    shown = json.loads((deployed / 'model.report.json').read_text())['pictures']
    assert [each['name'] for each in shown['pictures']] == ['0.png', '1.png']
    assert 'from left to right: float, quantized, integers' in shown['note']
    caption = re.fullmatch(r'float (\d+) boxes, quantized (\d+) boxes, integers (\d+) boxes; integers '
                           r'against quantized: \d+ lost, \d+ added, sum of score changes \d+\.\d\d',
                           shown['pictures'][0]['caption'])
    assert caption is not None, shown
    page = (deployed / 'model.report.html').read_text()
    found = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)
    assert len(found) == PICTURES
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(found[0]), np.uint8), cv2.IMREAD_COLOR)
    # 64 x 48 px, enlarged eight times, thrice, with two gaps of 4 px, under titles of 28 px.
    assert picture.shape[1] == min(3 * 8 * 48 + 2 * 4, WIDEST) and picture.shape[0] == 8 * 64 + 28
    assert '<h2>Test pictures</h2>' in page and '0.png' in page


@pytest.fixture(scope='module')
def loaded(staged, random_checkpoints, tmp_path_factory):
    """Completed config, quantizing detector, program with its contract."""
    cfg = staged('int', tmp_path_factory.mktemp('loaded'))
    model = apis.load_quantized(cfg, random_checkpoints['calibration'])
    exported = apis.to_integers(quantized_graphs(model), apis.metadata_of(cfg, model))
    return cfg, model, program_from_module(exported.integer)


@pytest.fixture
def parts(loaded):
    """The same with a config that a test may change."""
    return copy.deepcopy(loaded[0]), *loaded[1:]


def test_the_same_input_gives_the_same_bytes_and_three_by_default(parts):
    cfg, model, program = parts
    pictures, note = pictures_to_draw(cfg)
    assert len(pictures) == 3 and note == ''
    first, second = (report_pictures(cfg, model, program, pictures[:1]) for _ in range(2))
    assert first == second and len(first.pictures) == 1
    assert 'from left to right: quantized, integers' in first.note


def test_none_are_drawn_where_the_data_are_absent_unless_they_are_asked_for(parts):
    cfg = parts[0]
    cfg.test_dataloader.dataset.ann_file = 'absent.json'
    pictures, note = pictures_to_draw(cfg)
    assert pictures == []
    assert re.match('No picture is drawn: field test_dataloader: .*absent.json not found', note)
    with pytest.raises(BpuError, match='absent.json not found'):
        pictures_to_draw(cfg, 1)
    assert pictures_to_draw(cfg, 0) == ([], 'No pictures were asked for.')


def test_pictures_come_as_they_are_loaded_in_the_order_of_the_data(parts):
    cfg = parts[0]
    found = sample_pictures(cfg, 100)
    assert [picture.name for picture in found] == [f'{number}.png' for number in range(8)]
    assert {(picture.image.shape, picture.image.dtype.name) for picture in found} == {
        ((64, 48, 3), 'uint8')}


def test_a_picture_that_cannot_be_loaded_is_named(parts):
    cfg = parts[0]
    cfg.test_dataloader.dataset.data_prefix.img = 'elsewhere/'
    with pytest.raises(BpuError, match='field test_dataloader.dataset: picture 0 cannot be loaded'):
        sample_pictures(cfg, 1)
    cfg.test_dataloader.dataset.pipeline = []
    with pytest.raises(BpuError, match='dataset.pipeline: expected a step that loads a picture'):
        sample_pictures(cfg, 1)
    cfg.test_dataloader = cfg.val_dataloader = None
    with pytest.raises(BpuError, match='field test_dataloader: expected the pictures to draw, found none'):
        sample_pictures(cfg, 1)
