"""A quarter of the images that COCO train2017 has: opening the database, building the data set.

``benchmarks/dataset.py`` does it with all of them.
"""
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import mmdet_bpu.openmmlab  # noqa: F401  (lets mmdet be imported beside mmcv-lite)
from mmdet.datasets import CocoDataset

from mmdet_bpu.datasets import CocoLMDBDataset, pack_coco

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
IMAGES = 30_000
POSITIONS = (0, 1, 14_998, IMAGES - 1)
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True)]


class Measured(NamedTuple):
    meta: dict
    seconds_to_open: float
    files: dict
    lmdb: dict
    samples_of_files: list[dict]
    samples_of_lmdb: list[dict]


@pytest.fixture(scope='module')
def measured():
    """One run; every step in a process of its own, so that none pays for another."""
    # Not one of pytest's folders: it keeps those of three runs, with all the files of each.
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)  # xdsl installs a package of the name "benchmarks"
        from dataset_generated import FIRST_ID, many_small
        from dataset_process import cost_of_building, in_fresh_process, seconds_to_open
        folder = Path(name)
        coco = in_fresh_process(many_small, folder, IMAGES)
        database = str(folder / 'packed')
        meta = in_fresh_process(pack_coco, *coco, database)
        arguments = dict(data_prefix=dict(img=str(coco.img_dir)), pipeline=PIPELINE)
        open_seconds = in_fresh_process(seconds_to_open, database, FIRST_ID)
        files, samples_of_files = in_fresh_process(
            cost_of_building, CocoDataset, dict(arguments, ann_file=str(coco.ann_file)), POSITIONS)
        lmdb, samples_of_lmdb = in_fresh_process(
            cost_of_building, CocoLMDBDataset, dict(arguments, lmdb=database), POSITIONS)
        yield Measured(meta, open_seconds, files, lmdb, samples_of_files, samples_of_lmdb)


def test_all_images_and_boxes_are_packed(measured):
    counts = measured.meta['counts']
    assert (counts['images'], counts['annotations']) == (IMAGES, 7 * IMAGES)
    assert measured.lmdb['images'] == measured.files['images'] == IMAGES


def test_the_database_opens_in_under_a_second(measured):
    assert measured.seconds_to_open < 1


@pytest.mark.parametrize('cost', ['seconds', 'added_mb'])
def test_building_costs_at_most_half_of_coco_dataset(measured, cost):
    assert measured.lmdb[cost] <= 0.5 * measured.files[cost]


def test_samples_are_those_of_coco_dataset(measured):
    assert len(measured.samples_of_files) == len(POSITIONS)
    for expected, found in zip(measured.samples_of_files, measured.samples_of_lmdb, strict=True):
        assert found.pop('lmdb_path')
        assert set(found) == set(expected)
        for name in ('img', 'gt_bboxes_labels', 'gt_ignore_flags'):
            np.testing.assert_array_equal(found.pop(name), expected.pop(name))
        np.testing.assert_array_equal(found.pop('gt_bboxes').numpy(),
                                      expected.pop('gt_bboxes').numpy())
        assert found == expected
