"""tools/infer.py"""
import json
import os

import cv2
import numpy as np
import pytest


def read(folder):
    return json.loads((folder / 'detections.json').read_text())


def test_an_artefact_needs_no_config_and_all_forms_agree(tool, deployment, photos, tmp_path):
    folder = deployment[0]
    done = tool('infer.py', folder / 'model.hbm', photos, '--compare', folder / 'model.int.mlir',
                '--score-thr', 0, '--out', tmp_path / 'seen')
    assert done.code == 0, done.err
    result = read(tmp_path / 'seen')
    assert [image['picture'] for image in result['images']] == ['a.png', 'more/a.png']
    for image in result['images']:
        compiled, integer = image['detections']
        assert len(compiled) == 40 and compiled == integer
        assert {'label', 'name', 'score', 'bbox'} == set(compiled[0])
        assert compiled[0]['name'] == str(compiled[0]['label'])
        for found in compiled:
            x1, y1, x2, y2 = found['bbox']
            assert 0 <= x1 <= x2 <= image['width'] and 0 <= y1 <= y2 <= image['height']
    drawn = cv2.imread(str(tmp_path / 'seen' / 'a.png'))
    assert drawn.shape == (90 * 4 + 28, 2 * 130 * 4 + 4, 3)  # small: 4 times as large, two, titles
    assert 'model.hbm: 80 boxes' in done.out


def test_a_quantized_checkpoint_detects_what_its_artefact_detects(tool, deployment, checkpoints,
                                                                 digits_config, photos, tmp_path):
    done = tool('infer.py', checkpoints['calibration'], photos / 'a.png', '--config', digits_config,
                '--compare', deployment[0] / 'model.hbm', '--score-thr', 0,
                '--out', tmp_path / 'seen')
    assert done.code == 0, done.err
    quantized, integer = read(tmp_path / 'seen')['images'][0]['detections']
    scores = [[found['score'] for found in each] for each in (quantized, integer)]
    assert scores[0] == pytest.approx(scores[1], abs=0.05)


def test_a_float_checkpoint(tool, checkpoints, digits_config, photos, tmp_path):
    done = tool('infer.py', checkpoints['float'], photos / 'a.png', '--config', digits_config,
                '--deploy-preprocessing', '--out', tmp_path / 'seen')
    assert done.code == 0, done.err
    assert 'float.pth (float): ' in done.out
    assert cv2.imread(str(tmp_path / 'seen' / 'a.png')).shape == (360, 520, 3)


def test_bad_input_writes_nothing(tool, deployment, checkpoints, photos, tmp_path):
    hbm = deployment[0] / 'model.hbm'
    short = tmp_path / 'short.hbm'
    short.write_bytes(hbm.read_bytes()[:5000])
    broken = tmp_path / 'pictures'
    broken.mkdir()
    (broken / 'b.jpg').write_bytes(b'not a picture')
    empty = tmp_path / 'empty'
    empty.mkdir()
    for arguments, words in (
            ([hbm, broken], 'b.jpg cannot be decoded (13 bytes)'),
            ([hbm, empty], 'no pictures in'),
            ([hbm, tmp_path / 'none.jpg'], 'none.jpg not found'),
            ([hbm, photos, '--score-thr', 2], 'a number from 0 to 1, found 2.0'),
            ([short, photos], 'short.hbm'),
            ([tmp_path / 'none.hbm', photos], 'none.hbm not found'),
            ([deployment[0] / 'model.hbir.mlir', photos], 'integer form'),
            ([deployment[0] / 'model.deploy.json', photos], 'expected a model.int.mlir or'),
            ([checkpoints['float'], photos], '--config FILE')):
        done = tool('infer.py', *arguments, '--out', tmp_path / 'seen')
        assert (done.code, words in done.err, 'Traceback' in done.err) == (2, True, False), done.err
        assert not (tmp_path / 'seen').exists()


def test_what_is_no_picture_is_named_and_skipped(tool, deployment, photos, tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    good = (photos / 'a.png').read_bytes()
    (folder / 'a.png').write_bytes(good)
    (folder / 'b.jpg').write_bytes(b'not a picture')
    os.mkfifo(folder / 'c.png')
    (folder / 'd.png').symlink_to('gone')
    (folder / 'e.png').symlink_to('e.png')
    (folder / 'f.png').symlink_to('/dev/zero')
    (folder / 'g.png').mkdir()
    for name in (b'h\xff.png', b'i\n.png', b'n' * 251 + b'.png', b'n' * 251 + b'.bmp'):
        with open(os.path.join(os.fsencode(folder), name), 'wb') as file:
            file.write(good)
    done = tool('infer.py', deployment[0] / 'model.hbm', folder, '--out', tmp_path / 'seen')
    assert done.code == 0, done.err
    result = read(tmp_path / 'seen')
    skipped = {each['file'].rpartition('/')[2]: each['reason'] for each in result['skipped']}
    assert list(skipped) == ['b.jpg', 'c.png', 'd.png', 'e.png', 'f.png']
    for name, words in dict(b='cannot be decoded', c='expected a file, found a pipe',
                            d='No such file or directory, a link', e='symbolic links, a link',
                            f='expected a file, found a device').items():
        assert words in next(reason for file, reason in skipped.items() if file.startswith(name))
    assert done.err.count('skipped: picture ') == 5
    assert len(result['images']) == 5
    for image in result['images']:
        assert cv2.imdecode(np.fromfile(tmp_path / 'seen' / image['picture'], np.uint8), 1).shape \
            == (90 * 4, 130 * 4, 3)
    assert result['images'][1]['file'].endswith('h\\udcff.png')


def test_a_picture_is_never_replaced_by_what_was_drawn_into_it(tool, deployment, photos, tmp_path):
    (tmp_path / 'a.png').write_bytes((photos / 'a.png').read_bytes())
    before = (tmp_path / 'a.png').read_bytes()
    done = tool('infer.py', deployment[0] / 'model.hbm', tmp_path, '--out', tmp_path)
    assert (done.code, 'would replace the picture' in done.err) == (2, True), done.err
    assert (tmp_path / 'a.png').read_bytes() == before and len(list(tmp_path.iterdir())) == 1
