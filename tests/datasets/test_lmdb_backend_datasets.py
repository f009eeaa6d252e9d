import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mmdet.datasets.transforms  # noqa: F401  (registers the stock transforms)
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import BaseSegDataset, CocoDataset, CocoPanopticDataset, XMLDataset
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.hub import get_config
from PIL import Image
from torch.utils.data import DataLoader

from mmdet_bpu.datasets import pack_coco

CLASSES = dict(classes=('dog', 'cat', 'bird'))


def backend_args(path, **options):
    return dict(backend='coco_lmdb', lmdb=str(path), **options)


def names_of(coco_files):
    return [image['file_name'] for image in coco_files.content()['images']]


def pipeline(args):
    return [dict(type='LoadImageFromFile', backend_args=args),
            dict(type='mmdet.LoadAnnotations', with_bbox=True),
            dict(type='mmdet.Resize', scale=(64, 64), keep_ratio=True),
            dict(type='mmdet.RandomFlip', prob=0.5),
            dict(type='mmdet.PackDetInputs')]


def samples(dataset):
    """What each sample is before and after the pipeline, augmented by its position."""
    found = []
    for i in range(len(dataset)):
        np.random.seed(i)
        found.append((dataset.get_data_info(i), dataset[i]))
    return found


def assert_same_samples(expected, found):
    assert [info for info, _ in found] == [info for info, _ in expected] != []
    for (_, a), (_, b) in zip(expected, found):
        assert (a['inputs'] == b['inputs']).all()
        a, b = a['data_samples'], b['data_samples']
        assert a.metainfo == b.metainfo
        assert (a.gt_instances.bboxes.tensor == b.gt_instances.bboxes.tensor).all()
        assert (a.gt_instances.labels == b.gt_instances.labels).all()


@pytest.mark.parametrize('arguments', [
    dict(), dict(test_mode=True), dict(filter_cfg=dict(filter_empty_gt=True, min_size=32)),
    dict(metainfo=dict(classes=('bird', 'dog')))], ids=str)
@pytest.mark.parametrize('shards', [1, 3])
def test_stock_coco_dataset_runs_from_the_database_alone(coco_files, tmp_path, arguments, shards):
    pack_coco(*coco_files, tmp_path / 'lmdb', shards=shards)
    arguments = {'metainfo': CLASSES, 'data_root': str(coco_files.ann_file.parent),
                 'data_prefix': dict(img='images/'), 'ann_file': 'instances.json', **arguments}
    expected = samples(CocoDataset(pipeline=pipeline(None), **arguments))
    shutil.rmtree(coco_files.ann_file.parent)
    args = backend_args(tmp_path / 'lmdb')
    assert_same_samples(
        expected, samples(CocoDataset(backend_args=args, pipeline=pipeline(args), **arguments)))


CONFIG = """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_bpu.datasets'], allow_failed_imports=False)

train_lmdb = dict(backend='coco_lmdb', lmdb='train_lmdb')
train_pipeline = _base_.train_pipeline
train_pipeline[0]['backend_args'] = train_lmdb
train_dataloader = dict(dataset=dict(
    backend_args=dict(_delete_=True, **train_lmdb), pipeline=train_pipeline))
"""


def test_stock_config_runs_from_the_database_alone(coco128, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pack_coco(*coco128, 'train_lmdb')
    Path('packed.py').write_text(CONFIG)
    packed = Config.fromfile('packed.py').train_dataloader.dataset
    stock = get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py').train_dataloader.dataset
    stock.data_root = f'{coco128.img_dir.parent}/'
    expected, found = (DATASETS.build({**cfg, '_scope_': 'mmdet'}) for cfg in (stock, packed))
    assert len(found) == len(expected) > 100
    for (info, sample), (original, expected_sample) in zip(samples(found), samples(expected)):
        original['img_path'] = original['img_path'].replace(stock.data_root, 'data/coco/')
        assert info == original
        assert (sample['inputs'] == expected_sample['inputs']).all()


def test_stock_metric_takes_its_ground_truth_from_the_database(coco_files, packed):
    found = CocoMetric(ann_file='gone/instances.json', backend_args=backend_args(packed))
    expected = CocoMetric(ann_file=str(coco_files.ann_file))
    assert found._coco_api.imgs == expected._coco_api.imgs
    assert found._coco_api.anns == expected._coco_api.anns


def test_xml_dataset_reads_its_images_from_the_database(coco_files, packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [name.removesuffix('.jpg') for name in names_of(coco_files) if name.endswith('.jpg')]
    for name in names:
        path = Path('VOC/Annotations', f'{name}.xml')
        path.parent.mkdir(parents=True, exist_ok=True)
        # No <size>: the data set opens the image to know it.
        path.write_text('<annotation><object><name>dog</name><bndbox><xmin>3</xmin><ymin>4</ymin>'
                        '<xmax>20</xmax><ymax>30</ymax></bndbox></object></annotation>')
    Path('VOC/train.txt').write_text('\n'.join(names))
    arguments = dict(data_root='VOC/', ann_file='train.txt', metainfo=CLASSES,
                     data_prefix=dict(sub_data_root=''))
    args = backend_args(packed)
    found = XMLDataset(backend_args=args, pipeline=pipeline(args), **arguments)
    shutil.copytree(coco_files.img_dir, 'VOC/JPEGImages')
    expected = XMLDataset(pipeline=pipeline(None), **arguments)
    assert len(expected) == 6
    assert_same_samples(samples(expected), samples(found))


@pytest.fixture
def panoptic(coco_files, tmp_path, monkeypatch):
    """Arguments of a panoptic data set whose images have the names of their masks."""
    monkeypatch.chdir(tmp_path)
    images, annotations = [], []
    for image in coco_files.content()['images'][1:2]:
        assert image['file_name'] == 'b.png'
        images.append(image)
        segment = dict(id=5, category_id=1, bbox=[0, 0, 20, 20], area=400, iscrowd=0)
        annotations.append(dict(
            image_id=image['id'], file_name=image['file_name'], segments_info=[segment]))
        mask = np.zeros((image['height'], image['width']), np.uint8)
        mask[:20, :20] = 5
        Path('masks').mkdir()
        Image.fromarray(mask).save(Path('masks', image['file_name']))
    Path('panoptic.json').write_text(json.dumps(dict(
        images=images, annotations=annotations, categories=[dict(id=1, name='dog', isthing=1)])))
    return dict(ann_file='panoptic.json', data_prefix=dict(img='images/', seg='masks/'),
                metainfo=dict(classes=('dog', ), thing_classes=('dog', ), stuff_classes=()))


def test_panoptic_dataset_takes_images_packed_and_masks_from_the_disk(coco_files, packed, panoptic):
    def panoptic_dataset(args):
        return CocoPanopticDataset(backend_args=args, **panoptic, pipeline=[
            dict(type='LoadImageFromFile', backend_args=args),
            dict(type='mmdet.LoadAnnotations', with_label=False, with_seg=True, backend_args=args),
            dict(type='mmdet.PackDetInputs')])

    found = panoptic_dataset(backend_args(packed, img_dir='images'))[0]
    shutil.copytree(coco_files.img_dir, 'images')
    expected = panoptic_dataset(None)[0]
    assert (found['inputs'] == expected['inputs']).all()
    mask = found['data_samples'].gt_sem_seg.sem_seg
    assert (mask == expected['data_samples'].gt_sem_seg.sem_seg).all()
    assert (mask == 5).sum() == 400


def test_segmentation_dataset_lists_the_packed_folder(coco_files, packed):
    arguments = dict(img_suffix='.jpg', metainfo=CLASSES)
    expected = BaseSegDataset(
        data_prefix=dict(img_path=str(coco_files.img_dir)), **arguments)
    found = BaseSegDataset(
        data_prefix=dict(img_path='data/images'), backend_args=backend_args(packed), **arguments)
    relative = [os.path.relpath(expected.get_data_info(i)['img_path'], coco_files.img_dir)
                for i in range(len(expected))]
    assert len(relative) == 6
    assert [os.path.relpath(found.get_data_info(i)['img_path'], 'data/images')
            for i in range(len(found))] == relative


def test_transform_alone_decodes_as_from_files(coco_files, packed):
    for options in (dict(), dict(color_type='unchanged'), dict(imdecode_backend='pillow')):
        for name in names_of(coco_files):
            expected = LoadImageFromFile(**options)(dict(img_path=str(coco_files.img_dir / name)))
            found = LoadImageFromFile(backend_args=backend_args(packed), **options)(
                dict(img_path=f'elsewhere/{name}'))
            assert np.array_equal(found['img'], expected['img'])
            assert found['ori_shape'] == expected['ori_shape']


def test_transform_passes_over_missing_images_if_told_to(packed):
    args = backend_args(packed)
    load = LoadImageFromFile(ignore_empty=True, backend_args=args)
    assert load(dict(img_path='train/none.jpg')) is None
    with pytest.raises(FileNotFoundError, match='train/none.jpg'):
        LoadImageFromFile(backend_args=args)(dict(img_path='train/none.jpg'))


def test_forked_workers_read(coco_files, packed):
    args = backend_args(packed)
    dataset = CocoDataset(ann_file='x/instances.json', metainfo=CLASSES, backend_args=args,
                          pipeline=pipeline(args)[:1], data_prefix=dict(img='images/'))
    expected = [dataset[i]['img'] for i in range(len(dataset))]  # opened in the parent as well
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=list,
                        multiprocessing_context='fork', persistent_workers=True)
    for _ in range(2):
        found = [sample['img'] for batch in loader for sample in batch]
        assert all(map(np.array_equal, expected, found)) and len(found) == len(expected) == 8


SPAWNING_SCRIPT = '''
import sys

import mmdet_bpu.datasets
from mmdet.datasets import CocoDataset
from torch.utils.data import DataLoader

if __name__ == '__main__':
    args = dict(backend='coco_lmdb', lmdb=sys.argv[1])
    dataset = CocoDataset(ann_file='x/instances.json', data_prefix=dict(img='images/'),
                          metainfo=dict(classes=('dog', 'cat', 'bird')), backend_args=args,
                          pipeline=[dict(type='LoadImageFromFile', backend_args=args)])
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context='spawn')
    found = [sample['img'] for sample in loader]
    assert all((found[i] == dataset[i]['img']).all() for i in range(8))
    print(len(found))
'''


def test_spawned_workers_read_if_the_script_imports_the_backend(packed, tmp_path):
    (tmp_path / 'spawning.py').write_text(SPAWNING_SCRIPT)
    run = subprocess.run([sys.executable, 'spawning.py', packed], cwd=tmp_path, timeout=300,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == '8'
