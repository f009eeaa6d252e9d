"""From the command line through NV12: deployed, run on raw frames, and by the document's code."""
import json
import re
import runpy
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'deploy.md').read_text(), re.DOTALL)
NV12 = ['--cfg-options', 'bpu.input_format=nv12']
WIDTH, HEIGHT = 130, 90


@pytest.fixture(scope='module')
def camera_deployment(tool, checkpoints, digits_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp('camera') / 'deploy'
    done = tool('deploy_bpu.py', digits_config, checkpoints['calibration'], '--out', folder,
                '--backend', 'sim', *NV12)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope='module')
def recorded(tmp_path_factory):
    """A folder with a raw frame, and an ordinary picture beside it."""
    folder = tmp_path_factory.mktemp('recorded')
    content = np.random.default_rng(0).integers(0, 256, WIDTH * HEIGHT * 3 // 2, dtype=np.uint8)
    (folder / 'frame.nv12').write_bytes(content.tobytes())
    cv2.imwrite(str(folder / 'photo.png'), content[:91 * 90].reshape(91, 90))
    return folder


def config(digits_config, stage):
    from mmdet_bpu import apis
    from mmdet_bpu.engine.stages import load_config
    cfg = load_config(str(digits_config), stage, {'bpu.input_format': 'nv12'})
    return cfg, apis.settings_of(cfg)


def test_simulator_and_interpreter_agree_on_frames_bit_for_bit(camera_deployment):
    from mmdet_bpu import apis
    reference, fast = (apis.load_artifact(camera_deployment / name, kernels) for name, kernels in
                       (('model.int.mlir', 'reference'), ('model.hbm', 'fast')))
    assert [(spec.name, spec.dtype) for spec in fast.inputs] == [('image_y', 'ui8'), ('image_uv', 'ui8')]
    rng = np.random.default_rng(0)
    inputs = {spec.name: torch.from_numpy(rng.integers(0, 256, spec.shape, dtype=np.uint8))
              for spec in fast.inputs}
    first, second = reference.run(inputs), fast.run(inputs)
    assert first and all(torch.equal(first[name], second[name]) for name in first)


def test_the_contract_and_the_report_say_what_is_fed(camera_deployment):
    contract = json.loads((camera_deployment / 'model.deploy.json').read_text())
    assert contract['preprocessing']['camera'] == dict(
        format='nv12', range='full', matrix='bt601', by='network')
    assert [entry['shape'] for entry in contract['inputs']] == [[1, 128, 128, 1], [1, 64, 64, 2]]
    words = ('NV12 frames, full range BT.601, stretched to 128 x 128 px by the host plane by plane, '
             'converted to RGB and normalised inside the network')
    report = json.loads((camera_deployment / 'model.report.json').read_text())
    assert report['contract']['input stage'] == words
    assert words in (camera_deployment / 'model.report.html').read_text()
    assert 'hbir.image_preprocess' in (camera_deployment / 'model.hbir.mlir').read_text()


def test_raw_frames_and_pictures_are_detected_in_alike_by_all_forms(tool, camera_deployment, recorded,
                                                                    tmp_path):
    done = tool('infer.py', camera_deployment / 'model.hbm', recorded, '--compare',
                camera_deployment / 'model.int.mlir', '--nv12', f'{WIDTH}x{HEIGHT}', '--score-thr', 0,
                '--out', tmp_path / 'seen')
    assert done.code == 0, done.err
    images = json.loads((tmp_path / 'seen' / 'detections.json').read_text())['images']
    assert [(image['picture'], image['width'], image['height']) for image in images] == [
        ('frame.png', WIDTH, HEIGHT), ('photo.png', 90, 91)]
    for image in images:
        compiled, integer = image['detections']
        assert len(compiled) == 40 and compiled == integer


def test_bad_frames_are_named(tool, camera_deployment, deployment, recorded, tmp_path):
    hbm, frame = camera_deployment / 'model.hbm', recorded / 'frame.nv12'
    for arguments, words in (
            ([hbm, frame, '--nv12', '131x90'], 'even width and height, found 131x90; the next that '
             'are even: 130x90 and 132x90'),
            ([hbm, frame, '--nv12', '130'], '--nv12: expected WIDTHxHEIGHT in px'),
            ([hbm, frame, '--nv12', '132x90'], 'frame.nv12: expected 17820 bytes for 132x90'),
            ([hbm, frame, '--nv12', '100000x4'], 'sides of at most 65536 px'),
            ([deployment[0] / 'model.hbm', frame, '--nv12', '130x90'],
             "--nv12: expected models that take a camera's frames")):
        done = tool('infer.py', *arguments, '--out', tmp_path / 'seen')
        assert (done.code, words in done.err, 'Traceback' in done.err) == (2, True, False), done.err
        assert not (tmp_path / 'seen').exists()


def test_the_document_s_code_makes_the_bytes_that_are_trained_on(
        camera_deployment, digits_config, recorded, tmp_path, monkeypatch):
    from mmcv.transforms import Compose
    from mmdet.registry import TRANSFORMS

    from mmdet_bpu import apis
    from mmdet_bpu.engine.artifact_detector import ArtifactDetector
    from mmdet_bpu.engine.deploy_preprocessing import in_camera_colors
    from mmdet_bpu.engine.predictors import DetectorPredictor, picture_pipeline
    from mmdet_bpu.runtime.camera import as_yuv444
    use, simulator, frames = BLOCKS
    shutil.copytree(camera_deployment, tmp_path / 'deploy')
    shutil.copy(recorded / 'photo.png', tmp_path / 'photo.png')
    shutil.copy(recorded / 'frame.nv12', tmp_path / 'frame.nv12')
    script = tmp_path / 'board.py'
    script.write_text(simulator + use.replace('photo.jpg', 'photo.png')
                      + frames.replace('1920, 1080', f'{WIDTH}, {HEIGHT}'))
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(script))

    cfg, _ = config(digits_config, 'hbm')
    steps = Compose([TRANSFORMS.build(step) for step in
                     in_camera_colors(picture_pipeline(cfg), 'bytes')])
    given = steps(dict(img=np.zeros((HEIGHT, WIDTH, 3), np.uint8), img_id=0,
                       camera_frame=found['picture']))['inputs']
    bytes_ = [found['inputs'][name][0] for name in ('image_y', 'image_uv')]
    assert np.array_equal(as_yuv444(bytes_), given.permute(1, 2, 0).numpy())
    detector = ArtifactDetector(apis.build_detector(cfg), found['simulator'], camera=dict(
        format='nv12', range='full', matrix='bt601'))
    expected = DetectorPredictor(detector, cfg, [], 'mmdet').predict(found['picture'])
    np.testing.assert_allclose(found['scores'], expected.scores, rtol=0, atol=1e-6)
