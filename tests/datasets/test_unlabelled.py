"""Pictures that nobody has annotated are data sets: as a folder, and packed."""
import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS

from mmdet_bpu.datasets import CocoLMDBDataset, PictureFolder, pack_coco
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.datasets.picture_files import picture_size
from mmdet_bpu.datasets.without_annotations import annotation_loader, without_annotations
from mmdet_bpu.errors import BpuError

SIZES = {'b.png': (20, 30), 'deep/a.jpg': (16, 12), 'c.JPG': (8, 9)}  # (height, width) px
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='RandomFlip', prob=1.0), dict(type='Resize', scale=(10, 10), keep_ratio=False),
            dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1)), dict(type='PackDetInputs')]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'pictures'
    (root / 'deep').mkdir(parents=True)
    for number, (name, size) in enumerate(SIZES.items()):
        cv2.imwrite(str(root / name), np.full((*size, 3), 40 * number + 40, np.uint8))
    (root / 'notes.txt').write_text('no picture')
    return root


def built(kind, **config):
    return DATASETS.build(dict(type=kind, _scope_='mmdet', **config))


def means(dataset):
    return [int(sample['inputs'].float().mean().round()) for sample in dataset]


def test_a_folder_is_a_data_set_without_boxes(folder):
    dataset = built('PictureFolder', folder='pictures', data_root=str(folder.parent),
                    ann_file='gone.json', filter_cfg=dict(filter_empty_gt=True),
                    pipeline=without_annotations(PIPELINE))
    assert not dataset.labelled and len(dataset) == 3
    assert [(info['height'], info['width']) for info in map(dataset.get_data_info, range(3))] == [
        (20, 30), (8, 9), (16, 12)]
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 10, 10)
    assert len(sample['data_samples'].gt_instances.bboxes) == 0


def test_a_picture_that_breaks_off_is_named(folder):
    file = folder / 'deep' / 'a.jpg'
    file.write_bytes(file.read_bytes()[:630])  # its size is still there
    assert picture_size(str(file)) == (16, 12)
    dataset = built('PictureFolder', folder=str(folder), pipeline=without_annotations(PIPELINE))
    with pytest.raises(BpuError, match='picture .*a.jpg cannot be read: .* damaged'):
        list(dataset)


def test_crops_leave_pictures_without_boxes_in(folder):
    crop = dict(type='RandomCrop', crop_size=(6, 6))
    pipeline = without_annotations([PIPELINE[0], dict(type='LoadAnnotations', with_bbox=True), crop,
                                    dict(type='PackDetInputs')])
    assert 'allow_negative_crop' not in crop
    dataset = built('PictureFolder', folder=str(folder), pipeline=pipeline)
    assert [tuple(sample['inputs'].shape[1:]) for sample in dataset] == [(6, 6)] * 3


def test_a_packed_folder_holds_the_same_pictures(folder, tmp_path):
    meta = pack_coco(folder, None, tmp_path / 'packed', processes=1)
    assert meta['counts']['images'] == 3 and meta['counts']['annotations'] == 0
    assert meta['counts'] == verify_database(tmp_path / 'packed')['counts']
    pipeline = without_annotations(PIPELINE)
    packed = built('CocoLMDBDataset', lmdb=str(tmp_path / 'packed'), pipeline=pipeline,
                   metainfo=dict(classes=('ship', )), filter_cfg=dict(filter_empty_gt=True))
    assert not packed.labelled
    # Pixels of one colour, as each file holds it; JPEG may be off by one.
    assert means(packed) == means(built('PictureFolder', folder=str(folder), pipeline=pipeline))
    assert np.abs(np.array(means(packed)) - [40, 120, 80]).max() <= 1
    again = pack_coco(folder, None, tmp_path / 'again', processes=1)
    assert again['source'] == meta['source']


def test_what_is_no_picture_stops_packing_or_is_left_out(folder, tmp_path):
    (folder / 'a.png').write_bytes(b'no picture')
    with pytest.raises(BpuError, match=r'picture .*a.png cannot be read'):
        pack_coco(folder, None, tmp_path / 'packed', processes=1)
    meta = pack_coco(folder, None, tmp_path / 'packed', processes=1, on_error='skip')
    assert meta['counts']['images'] == 3
    assert [row['file_name'] for row in meta['report']['skipped']] == ['a.png']
    with pytest.raises(BpuError, match=r'picture .*a.png cannot be read'):
        PictureFolder(str(folder)).get_data_info(0)


def test_annotations_are_refused_by_the_name_of_their_loader(folder, tmp_path):
    pack_coco(folder, None, tmp_path / 'packed', processes=1)
    nested = [dict(type='RandomChoice', transforms=[PIPELINE[:2], []])]
    for pipeline in (PIPELINE, nested):
        with pytest.raises(BpuError, match='PictureFolder has LoadAnnotations.*labels=False'):
            PictureFolder(str(folder), pipeline)
        with pytest.raises(BpuError, match='CocoLMDBDataset has LoadAnnotations.*packed has no'):
            CocoLMDBDataset(lmdb=str(tmp_path / 'packed'), pipeline=pipeline)
        assert annotation_loader(without_annotations(pipeline)) is None
    assert [step['type'] for step in PIPELINE][1] == 'LoadAnnotations'


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(BpuError, match='no pictures in'):
        PictureFolder(str(tmp_path))
    with pytest.raises(BpuError, match='nowhere not found'):
        PictureFolder(str(tmp_path / 'nowhere'))


def test_a_size_is_that_of_the_upright_picture(tmp_path):
    from PIL import Image
    image = Image.new('RGB', (30, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'turned.jpg', exif=exif)
    assert picture_size(tmp_path / 'turned.jpg') == (30, 20)
    assert cv2.imread(str(tmp_path / 'turned.jpg')).shape[:2] == (30, 20)
