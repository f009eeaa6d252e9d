"""The code in docs/deploy.md: it runs as it stands, and detects what mmdet detects."""
import re
import runpy
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_bpu.engine.artifact_detector import ArtifactDetector
from mmdet_bpu.engine.predictors import DetectorPredictor
from mmdet_bpu.engine.stages import load_config

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'deploy.md').read_text(), re.DOTALL)


@pytest.fixture(scope='module')
def detected_by_mmdet(deployment, digits_config):
    """Function (picture) -> detections of the simulator with mmdet's pipeline and head."""
    from mmdet_bpu import apis
    cfg = load_config(str(digits_config), 'int')
    apis.settings_of(cfg)
    simulator = apis.load_artifact(deployment[0] / 'model.hbm')
    detector = ArtifactDetector(apis.build_detector(cfg), simulator)
    return DetectorPredictor(detector, cfg, [], 'mmdet').predict


@pytest.mark.parametrize('name', ['a.png', 'more/a.jpg'])
def test_the_documents_code_detects_what_mmdet_detects(deployment, photos, detected_by_mmdet, name,
                                                       tmp_path, monkeypatch):
    use, simulator, _ = BLOCKS
    shutil.copytree(deployment[0], tmp_path / 'deploy')
    picture = cv2.imread(str(photos / name))
    cv2.imwrite(str(tmp_path / 'photo.png'), picture)
    script = tmp_path / 'board.py'
    script.write_text(simulator + use.replace('photo.jpg', 'photo.png'))
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(script))

    expected = detected_by_mmdet(picture)
    assert len(found['scores']) == len(expected.scores) == 40
    # The same integers come in, so the scores are the same; only the sigmoid is another one.
    np.testing.assert_allclose(found['scores'], expected.scores, rtol=0, atol=1e-6)
    # Where two scores are equal, either may come first.
    clear = np.abs(np.diff(expected.scores)) > 1e-6
    clear = np.concatenate([[True], clear]) & np.concatenate([clear, [True]])
    assert clear.sum() > 30
    np.testing.assert_array_equal(found['labels'][clear], expected.labels[clear])
    assert np.abs(found['boxes'] - expected.boxes)[clear].max() <= 1e-3
    assert np.ptp(expected.boxes, axis=0).min() > 1  # px: not all of them one box


def test_the_int8_image_is_that_of_the_metadata_formula(deployment, photos):
    import json

    from mmdet_bpu.runtime.input_stage import int8_image
    contract = json.loads((deployment[0] / 'model.deploy.json').read_text())
    picture = cv2.imread(str(photos / 'a.png'))
    levels = int8_image(picture, contract)
    assert (levels.shape, levels.dtype) == ((1, 128, 128, 3), np.int8)
    resized = cv2.resize(picture, (128, 128))
    stage, scale = contract['preprocessing'], contract['inputs'][0]['scale']
    assert stage['color_order'] == 'rgb'
    for y, x, channel in ((0, 0, 0), (80, 3, 1), (127, 127, 2), (17, 99, 0)):
        value = np.float32(resized[y, x, 2 - channel])
        real = (value - np.float32(stage['mean'][channel])) / np.float32(stage['std'][channel])
        assert levels[0, y, x, channel] == np.clip(np.rint(real / np.float32(scale)), -128, 127)
