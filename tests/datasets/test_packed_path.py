"""Stock parts that open ``img_path`` find the picture in the database."""
import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.visualization import DetLocalVisualizer
from mmengine import fileio
from mmengine.structures import InstanceData

from mmdet_bpu.datasets import CocoLMDBDataset, pack_coco
from mmdet_bpu.datasets.packed_path import PackedPath
from mmdet_bpu.errors import BpuError

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='mmdet.PackDetInputs')]


@pytest.fixture
def dataset(packed):
    return CocoLMDBDataset(lmdb=str(packed), data_prefix=dict(img='nowhere/'), pipeline=PIPELINE,
                           test_mode=True)


def test_path_is_the_text_of_coco_dataset(dataset):
    path = dataset.get_data_info(0)['img_path']
    assert path == 'nowhere/a.jpg' and hash(path) == hash('nowhere/a.jpg')
    assert f'{path}' == 'nowhere/a.jpg' and json.dumps([path]) == '["nowhere/a.jpg"]'
    assert os.path.basename(path) == 'a.jpg' and Path(path) == Path('nowhere/a.jpg')


@pytest.mark.parametrize('same', [
    lambda path: path, copy.copy, copy.deepcopy, str, lambda path: pickle.loads(pickle.dumps(path))],
    ids=['itself', 'copy', 'deepcopy', 'str', 'pickle'])
def test_picture_is_found_by_the_path_wherever_it_went(dataset, coco_files, same):
    for n in range(len(dataset)):
        info = dataset.get_data_info(n)
        path = same(info['img_path'])
        content = (coco_files.img_dir / path.removeprefix('nowhere/')).read_bytes()
        assert fileio.get(path) == content
        assert fileio.exists(path) and fileio.isfile(path)
        with fileio.get_local_path(path) as local:
            assert Path(local).read_bytes() == content
            assert Path(local).name == os.path.basename(path)
        assert not os.path.exists(local)
        assert np.array_equal(mmcv.imread(path), mmcv.imfrombytes(content))


def drawn(dataset, folder, monkeypatch):
    """Pictures that the stock hook is about to draw, by the name of their files."""
    pictures = {}
    visualizer = DetLocalVisualizer.get_instance(f'of {folder}', save_dir=str(folder))
    monkeypatch.setattr(visualizer, 'add_datasample', lambda name, image, data_sample, **options:
                        pictures.setdefault(data_sample.img_path, image))
    hook = DetVisualizationHook(draw=True, interval=1, test_out_dir='drawn')
    runner = SimpleNamespace(work_dir=str(folder), timestamp='now', iter=0)
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples'].clone()
        sample.pred_instances = InstanceData()
        hook.after_test_iter(runner, index, {}, [sample])
        hook.after_val_iter(runner, index, {}, [sample])
    return pictures


def test_stock_hook_draws_the_pictures_of_a_packed_set(dataset, coco_files, tmp_path, monkeypatch):
    pictures = drawn(dataset, tmp_path, monkeypatch)
    assert len(pictures) == 8
    for path, picture in pictures.items():
        content = (coco_files.img_dir / path.removeprefix('nowhere/')).read_bytes()
        assert np.array_equal(picture, mmcv.imfrombytes(content, channel_order='rgb'))


def test_two_sets_with_the_same_names_are_not_mixed_up(
        make_coco, coco_files, packed, tmp_path, monkeypatch):
    other = make_coco(tmp_path / 'other')
    (other.img_dir / 'a.jpg').write_bytes((coco_files.img_dir / 'only_bird.jpg').read_bytes())
    pack_coco(*other, tmp_path / 'other_lmdb', processes=1)
    paths = [CocoLMDBDataset(lmdb=str(path)).get_data_info(0)['img_path']
             for path in (packed, tmp_path / 'other_lmdb')]
    assert paths[0] == paths[1] == 'a.jpg'
    assert fileio.get(paths[0]) == (coco_files.img_dir / 'a.jpg').read_bytes()
    assert fileio.get(paths[1]) == (other.img_dir / 'a.jpg').read_bytes()


def test_data_set_that_parses_by_itself_has_such_paths_too(packed):
    class Own(CocoLMDBDataset):
        def parse_data_info(self, raw):
            return dict(super().parse_data_info(raw), mine=True)

    path = Own(lmdb=str(packed)).get_data_info(0)['img_path']
    assert isinstance(path, PackedPath) and fileio.get(path)


def test_damaged_picture_is_said_in_words(packed):
    path = PackedPath('a.jpg', str(packed), 4711)
    with pytest.raises(BpuError, match='there is no image 4711 in this database'):
        fileio.get(path)


def test_other_paths_are_those_of_the_disk(tmp_path):
    (tmp_path / 'a.txt').write_text('é')
    assert fileio.get_text(tmp_path / 'a.txt') == 'é' and fileio.get(tmp_path / 'a.txt')
    assert not fileio.exists(tmp_path / 'b.txt') and not fileio.isfile('b.txt')
    with fileio.get_local_path(tmp_path / 'a.txt') as local:
        assert Path(local) == tmp_path / 'a.txt'
    with pytest.raises(FileNotFoundError):
        fileio.get(tmp_path / 'b.txt')


def test_backend_that_was_made_before_the_import_is_not_kept(packed):
    """In a process of its own: here it is imported already."""
    code = ('import sys; from mmengine import fileio; fileio.exists("x")\n'
            'import mmdet_bpu.datasets; from mmdet_bpu.datasets.packed_path import PackedPath\n'
            f'assert fileio.get(PackedPath("a.jpg", {str(packed)!r}, 139))[:2] == b"\\xff\\xd8"')
    subprocess.run([sys.executable, '-c', code], check=True, timeout=200,
                   env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])})
