import logging
from types import SimpleNamespace

import mmdet.datasets.transforms  # noqa: F401  (registers the stock transforms)
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.engine.hooks import PipelineSwitchHook
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import ConfigDict
from mmengine.dataset import ConcatDataset

from mmdet_bpu.datasets import (CocoLMDBDataset, LoadImageFromLMDB, pack_coco,
                                read_images_from_lmdb)
from mmdet_bpu.errors import BpuError

CLASSES = dict(classes=('dog', 'cat', 'bird'))
TRAIN_PIPELINE = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.Resize', scale=(64, 64), keep_ratio=True),
    dict(type='mmdet.PackDetInputs')
]


def both(coco_files, packed, **kwargs):
    """The stock data set on files and ours on the database, with the same arguments."""
    kwargs = {'metainfo': CLASSES, 'data_prefix': dict(img=str(coco_files.img_dir)), **kwargs}
    return (CocoDataset(ann_file=str(coco_files.ann_file), **kwargs),
            CocoLMDBDataset(lmdb=str(packed), **kwargs))


def assert_same_samples(expected, found):
    assert len(found) == len(expected)
    for i in range(len(expected)):
        sample = found.get_data_info(i)
        assert sample.pop('lmdb_path') == found.lmdb
        assert sample == expected.get_data_info(i)


def test_a_pipeline_that_a_hook_switches_to_reads_the_database(coco_files, packed):
    """Stock RTMDet trains its last epochs by another pipeline, which a hook builds."""
    switched = [*TRAIN_PIPELINE[:2], dict(type='mmdet.Resize', scale=(32, 32), keep_ratio=True),
                TRAIN_PIPELINE[-1]]
    expected, found = both(coco_files, packed, pipeline=TRAIN_PIPELINE)
    for dataset in (expected, found):
        runner = SimpleNamespace(epoch=1, train_dataloader=SimpleNamespace(dataset=dataset),
                                 logger=logging.getLogger(__name__))
        PipelineSwitchHook(1, switched).before_train_epoch(runner)
    for one, other in zip(expected, found, strict=True):
        assert max(other['inputs'].shape[1:]) == 32
        assert torch.equal(one['inputs'], other['inputs'])


@pytest.mark.parametrize('arguments', [
    dict(),
    dict(serialize_data=False),
    dict(test_mode=True, filter_cfg=dict(filter_empty_gt=True)),
    dict(filter_cfg=dict(filter_empty_gt=True, min_size=32)),
    dict(filter_cfg=dict(min_size=32)),
    dict(filter_cfg=dict(filter_empty_gt=True), metainfo=dict(classes=('bird', ))),
    dict(filter_cfg=dict(filter_empty_gt=True), metainfo=dict(classes=('dog', 'cat'))),
    dict(metainfo=dict(classes=('dog', 'bird'), palette=[(1, 2, 3), (4, 5, 6)], task='x')),
    dict(indices=3),
    dict(indices=[4, 0, 2]),
    dict(lazy_init=True),
    dict(data_prefix=dict(img='images/', seg='stuff/')),
    dict(data_prefix=dict(img='images/'), data_root='somewhere'),
    dict(return_classes=True),
], ids=str)
def test_samples_are_those_of_coco_dataset(coco_files, packed, arguments):
    if 'data_root' in arguments:
        arguments = {**arguments, 'data_root': str(coco_files.ann_file.parent)}
    expected, found = both(coco_files, packed, **arguments)
    assert_same_samples(expected, found)
    assert found.metainfo == expected.metainfo
    assert found.cat_ids == expected.cat_ids
    assert found.cat2label == expected.cat2label
    assert [found.get_cat_ids(i) for i in range(len(found))] == \
        [expected.get_cat_ids(i) for i in range(len(expected))]


@pytest.mark.parametrize('serialize', [True, False])
def test_subsets_are_those_of_coco_dataset(coco_files, packed, serialize):
    expected, found = both(coco_files, packed, serialize_data=serialize)
    for indices in (3, -2, [5, 1, 1]):
        assert_same_samples(expected.get_subset(indices), found.get_subset(indices))
    assert len(found.get_subset([])) == 0
    assert_same_samples(expected, found)
    expected.get_subset_([4, 2])
    found.get_subset_([4, 2])
    assert_same_samples(expected, found)


def test_negative_index_counts_from_the_end(coco_files, packed):
    expected, found = both(coco_files, packed)
    sample = found.get_data_info(-1)
    del sample['lmdb_path']
    assert sample == expected.get_data_info(-1)


def test_proposals_are_those_of_coco_dataset(coco_files, packed, tmp_path):
    import pickle
    names = [i['file_name'] for i in coco_files.content()['images']]
    prefix = coco_files.img_dir.name
    keys = [f'{prefix}/{name}' if '/' not in name else 'er/c.jpg' for name in names]
    proposals = {key: dict(bboxes=[n], scores=[n]) for n, key in enumerate(keys)}
    (tmp_path / 'proposals.pkl').write_bytes(pickle.dumps(proposals))
    expected, found = both(coco_files, packed, proposal_file=str(tmp_path / 'proposals.pkl'),
                           filter_cfg=dict(filter_empty_gt=True))
    assert found.get_data_info(2)['proposals']
    assert_same_samples(expected, found)


def test_samples_of_coco128_are_those_of_coco_dataset(coco128, tmp_path):
    pack_coco(*coco128, tmp_path / 'lmdb')
    expected, found = both(coco128, tmp_path / 'lmdb', metainfo=None,
                           filter_cfg=dict(filter_empty_gt=True, min_size=32))
    assert found.metainfo == expected.metainfo
    assert_same_samples(expected, found)


def test_category_map_holds_the_images_of_each_category(coco_files, packed):
    found = CocoLMDBDataset(lmdb=str(packed))
    for category in coco_files.content()['categories']:
        assert set(found.cat_img_map[category['id']]) == {
            a['image_id'] for a in coco_files.content()['annotations']
            if a['category_id'] == category['id']}


def test_classes_come_from_a_database_that_is_not_coco(packed):
    metainfo = CocoLMDBDataset(lmdb=str(packed)).metainfo
    assert metainfo['classes'] == ('dog', 'cat', 'bird')
    assert metainfo['palette'] == CocoDataset.METAINFO['palette'][:3]
    assert CocoLMDBDataset(lmdb=str(packed), metainfo=dict(task='x')).metainfo['classes'] == \
        ('dog', 'cat', 'bird')


def test_metainfo_of_coco_is_kept(make_coco, tmp_path):
    names = CocoDataset.METAINFO['classes']
    files = make_coco(tmp_path, [dict(id=n + 1, name=name) for n, name in enumerate(names)])
    pack_coco(*files, tmp_path / 'lmdb')
    assert CocoLMDBDataset(lmdb=str(tmp_path / 'lmdb')).metainfo == CocoDataset.METAINFO


def test_class_that_the_database_lacks_is_named(packed):
    with pytest.raises(BpuError, match=r"names \['unicorn'\].*\['dog', 'cat', 'bird'\]"):
        CocoLMDBDataset(lmdb=str(packed), metainfo=dict(classes=('dog', 'unicorn')))


def test_order_of_classes_that_labels_do_not_follow_is_warned_about(packed):
    with pytest.warns(UserWarning, match=r"\['dog', 'bird'\].*\['bird', 'dog'\]"):
        CocoLMDBDataset(lmdb=str(packed), metainfo=dict(classes=('bird', 'dog')))


def test_missing_database_is_named_at_construction(tmp_path):
    with pytest.raises(BpuError, match='no packed COCO data set at .*data/train_lmdb'):
        DATASETS.build(dict(type='CocoLMDBDataset', lmdb='train_lmdb', data_root='data'))


def test_path_is_looked_for_under_data_root_then_here(packed, tmp_path, monkeypatch):
    assert CocoLMDBDataset(lmdb='packed_lmdb', data_root=str(tmp_path)).lmdb == str(packed)
    monkeypatch.chdir(tmp_path)
    assert len(CocoLMDBDataset(lmdb='packed_lmdb', data_root='data/coco/')) == 8


def test_overlay_on_a_stock_config_builds(packed):
    stock = ConfigDict(type='CocoDataset', data_root='data/coco/', ann_file='annotations/x.json',
                       data_prefix=dict(img='train2017/'), backend_args=None,
                       filter_cfg=dict(filter_empty_gt=True, min_size=32),
                       pipeline=TRAIN_PIPELINE)
    dataset = DATASETS.build(ConfigDict({**stock, 'type': 'CocoLMDBDataset', 'lmdb': str(packed)}))
    assert dataset[0]['inputs'].shape[0] == 3


def test_stock_pipeline_gives_the_same_pixels_and_boxes(coco_files, packed):
    expected, found = both(coco_files, packed, pipeline=TRAIN_PIPELINE)
    for i in range(len(expected)):
        np.random.seed(i)
        a = expected[i]
        np.random.seed(i)
        b = found[i]
        assert (a['inputs'] == b['inputs']).all()
        a, b = a['data_samples'], b['data_samples']
        assert a.metainfo == b.metainfo
        assert (a.gt_instances.bboxes.tensor == b.gt_instances.bboxes.tensor).all()
        assert (a.gt_instances.labels == b.gt_instances.labels).all()


@pytest.mark.parametrize('options', [
    dict(), dict(to_float32=True), dict(color_type='grayscale'), dict(color_type='unchanged'),
    dict(color_type='color_ignore_orientation'), dict(imdecode_backend='pillow')], ids=str)
def test_decodes_as_load_image_from_file(coco_files, packed, options):
    expected, found = both(coco_files, packed)
    from_file = TRANSFORMS.build(dict(type='LoadImageFromFile', **options))
    from_lmdb = TRANSFORMS.build(dict(type='LoadImageFromLMDB', **options))
    for i in range(len(expected)):
        a = from_file(expected.get_data_info(i))
        b = from_lmdb(found.get_data_info(i))
        del b['lmdb_path']
        assert a['img'].dtype == b['img'].dtype
        assert np.array_equal(a.pop('img'), b.pop('img'))
        assert a == b


def test_exif_orientation_is_applied(packed):
    image = LoadImageFromLMDB(lmdb=str(packed))(dict(img_id=25))['img']
    assert image.shape == (60, 30, 3)  # stored 30 high, 60 wide


def test_sample_of_no_database_is_explained():
    with pytest.raises(BpuError, match="has no 'lmdb_path'; use it with CocoLMDBDataset"):
        LoadImageFromLMDB()(dict(img_id=1))


def test_ignore_empty_gives_none(packed):
    assert LoadImageFromLMDB(ignore_empty=True, lmdb=str(packed))(dict(img_id=1)) is None
    with pytest.raises(BpuError, match='no image 1 '):
        LoadImageFromLMDB(lmdb=str(packed))(dict(img_id=1))


def test_file_loaders_are_replaced_wherever_they_stand():
    load = dict(type='mmdet.LoadImageFromFile', to_float32=True)
    flip = dict(type='mmdet.RandomFlip')
    pipeline = [load, LoadImageFromFile(color_type='grayscale'), flip,
                dict(type='TestTimeAug', transforms=[[dict(type=LoadImageFromFile)], [flip]])]
    found = read_images_from_lmdb(pipeline)
    assert found[0] == dict(type=LoadImageFromLMDB, to_float32=True)
    assert isinstance(found[1], LoadImageFromLMDB) and found[1].color_type == 'grayscale'
    assert found[2] == flip
    assert found[3]['transforms'] == [[dict(type=LoadImageFromLMDB)], [flip]]
    assert load['type'] == 'mmdet.LoadImageFromFile'


def test_concatenated_data_sets_read_each_from_its_database(make_coco, packed, tmp_path):
    files = make_coco(tmp_path / 'other')
    images = files.content()['images'][:1]
    files.rewrite(images=images, annotations=[])
    pack_coco(*files, tmp_path / 'other_lmdb')
    both_sets = ConcatDataset([
        dict(type='mmdet.CocoLMDBDataset', lmdb=str(packed)),
        dict(type='mmdet.CocoLMDBDataset', lmdb=str(tmp_path / 'other_lmdb'))])
    assert len(both_sets) == 9
    assert len(both_sets.get_data_info(0)['instances']) == 2
    assert both_sets.get_data_info(8)['instances'] == []


def test_subclass_parses_the_entries_of_the_annotation_file(coco_files, packed):
    class WithLicense(CocoLMDBDataset):

        def parse_data_info(self, raw_data_info):
            sample = super().parse_data_info(raw_data_info)
            areas = [annotation['area'] for annotation in raw_data_info['raw_ann_info']]
            return dict(sample, license=raw_data_info['raw_img_info']['license'], areas=areas)

    found = WithLicense(lmdb=str(packed))
    stock = CocoLMDBDataset(lmdb=str(packed))
    areas = {a['id']: a['area'] for a in coco_files.content()['annotations']}
    assert found.get_data_info(0)['areas'] == [areas[2], areas[4]]
    for i in range(len(stock)):
        sample = found.get_data_info(i)
        assert sample.pop('license') == 1
        del sample['areas']
        assert sample == stock.get_data_info(i)


def test_boxes_that_would_not_be_resized_are_refused_in_training(packed):
    resized = dict(type='mmdet.LoadResizedImageFromLMDB',
                   resize=dict(type='mmdet.Resize', scale=(32, 32), keep_ratio=True))
    annotations = dict(type='mmdet.LoadAnnotations', with_bbox=True)
    with pytest.raises(BpuError, match='put LoadAnnotations before it'):
        CocoLMDBDataset(lmdb=str(packed), pipeline=[resized, annotations])
    CocoLMDBDataset(lmdb=str(packed), pipeline=[annotations, resized])[0]
    CocoLMDBDataset(lmdb=str(packed), pipeline=[resized, annotations], test_mode=True)[0]


def test_memory_of_a_data_set_is_its_image_ids(packed):
    dataset = CocoLMDBDataset(lmdb=str(packed))
    assert dataset.data_bytes.nbytes == 8 * len(dataset)
    assert not dataset.data_list
