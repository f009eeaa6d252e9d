"""COCO detection data set read from one LMDB database: a drop-in for mmdet's ``CocoDataset``."""
import copy
import os.path as osp
import warnings
from typing import Callable, Optional, Sequence

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import DATASETS
from mmengine.dataset import force_full_init

from mmdet_bpu.datasets.coco_evaluation import describe_repeated_names, repeated_names
from mmdet_bpu.datasets.ground_truth import is_step, with_ground_truth
from mmdet_bpu.datasets.lmdb_store import CocoStore, open_store
from mmdet_bpu.datasets.loading import read_images_from_lmdb
from mmdet_bpu.datasets.packed_path import PackedPath
from mmdet_bpu.datasets.scaled_loading import LoadResizedImageFromLMDB
from mmdet_bpu.datasets.without_annotations import refuse_annotations
from mmdet_bpu.errors import BpuError


@DATASETS.register_module()
class CocoLMDBDataset(CocoDataset):
    """``CocoDataset`` whose images and annotations are in a packed database.

    Same samples in the same order, with ``lmdb_path`` added to each. Stock pipelines work as they
    stand: ``LoadImageFromFile`` is replaced by ``LoadImageFromLMDB``. In memory a sample is its
    image id and its end, 16 bytes that all workers share: annotations are read and parsed when the
    sample is asked for (unless ``proposal_file`` is given, which needs them all). A subclass that
    overrides ``load_data_list`` or ``filter_data`` finds image ids in ``data_list``.

    In test mode ``PackDetInputs`` also hands on ``instances``, which is what mmdet's ``CocoMetric``
    without an annotation file makes its ground truth from.

    A database of pictures that nobody has annotated has no categories; ``metainfo`` may name classes all
    the same, and the pipeline loads no annotations.

    Class names come from ``metainfo``; without it from the database, if its categories are not
    those of COCO.

    Args:
        lmdb (str): Folder of the database, relative to ``data_root`` or to the working folder.
        pipeline (Sequence[dict | Callable]): As in ``CocoDataset``. Defaults to ().
        metainfo (dict, optional): As in ``CocoDataset``. Defaults to None.
        ann_file (str): Not read. Accepted, because a config that inherits a stock one still has it.
        **kwargs: All other arguments of ``CocoDataset``. ``data_prefix`` is only used to
            compose ``img_path`` and ``seg_map_path``.

    Raises:
        BpuError: If the database cannot be used, ``metainfo`` names a class that it lacks or one
            twice, two of its categories share the name of a class, or annotations are to be loaded and it
            has none.

    Attributes:
        labelled (bool): Whether the database has categories.
    """

    def __init__(self,
                 lmdb: str,
                 pipeline: Sequence[dict | Callable] = (),
                 metainfo: Optional[dict] = None,
                 ann_file: str = '',
                 **kwargs) -> None:
        self.lmdb = _resolve(lmdb, kwargs.get('data_root'))
        store = open_store(self.lmdb, fresh=True)
        self._identity = store.identity
        self._categories = store.coco_fields()['categories']
        self.labelled = bool(self._categories)
        if not self.labelled and not kwargs.get('test_mode', False):
            refuse_annotations(pipeline, type(self).__name__, self.lmdb)
        if metainfo is None or 'classes' not in metainfo:
            metainfo = {**self._classes_of_database(), **(metainfo or {})}
        kwargs.setdefault('data_prefix', dict(img=''))
        pipeline = read_images_from_lmdb(pipeline)
        if kwargs.get('test_mode', False):
            pipeline = with_ground_truth(pipeline)
        else:
            _check_boxes_are_resized(pipeline)
        self._read_ahead: dict[int, dict] = {}
        # A subclass may make other samples; it gets the annotation file's entries to do so.
        self._parses_annotations = (type(self).parse_data_info
                                    is not CocoLMDBDataset.parse_data_info)
        super().__init__(pipeline=pipeline, metainfo=metainfo, **kwargs)

    @property
    def pipeline(self) -> Callable:
        """The transforms of a sample; one that takes its place, as hooks do, reads the database too."""
        return self._pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Callable) -> None:
        if isinstance(getattr(pipeline, 'transforms', None), list):
            pipeline = copy.copy(pipeline)
            pipeline.transforms = read_images_from_lmdb(pipeline.transforms)
        self._pipeline = pipeline

    @property
    def store(self) -> CocoStore:
        """The database as this process sees it; opened at its first use.

        Raises:
            BpuError: If it was packed anew, with other content, since this data set was built.
        """
        store = open_store(self.lmdb)
        if store.identity != self._identity:
            raise BpuError(f'{self.lmdb} was packed anew since this data set was built from it: '
                           'start again, so that all processes read the same')
        return store

    @property
    def cat_img_map(self) -> dict[int, list[int]]:
        """Image ids by category id, of the whole database."""
        index = self.store.read_index()
        return {category['id']: index.ids[index.has_any_category([k])].tolist()
                for k, category in enumerate(self._categories)}

    def load_data_list(self) -> list:
        """Ids of all images; with proposals (keyed by path), all parsed samples."""
        self.cat_ids = self._selected_category_ids()
        self.cat2label = {cat_id: i for i, cat_id in enumerate(self.cat_ids)}
        ids = self.store.read_index().ids.tolist()
        if self._holds_samples:
            return [self._read_sample(image_id) for image_id in ids]
        return ids

    def filter_data(self) -> list:
        """Drop images by ``filter_cfg`` (``filter_empty_gt``, ``min_size`` in px) when training."""
        if self.test_mode or self.filter_cfg is None:
            return self.data_list
        index = self.store.read_index()
        keep = np.minimum(index.widths, index.heights) >= self.filter_cfg.get('min_size', 0)
        if self.labelled and self.filter_cfg.get('filter_empty_gt', False):
            selected = set(self.cat_ids)
            keep &= index.has_any_category(
                [k for k, category in enumerate(self._categories) if category['id'] in selected])
        return [item for item, kept in zip(self.data_list, keep) if kept]

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Sample ``idx`` before the pipeline, as ``CocoDataset`` gives it.

        Args:
            idx (int): Position in the filtered data set; negative counts from the end.

        Returns:
            dict: ``img_path`` (a :class:`PackedPath`, which stock hooks can open), ``img_id``,
            ``height`` and ``width`` (px), ``instances`` with ``bbox`` (x1, y1, x2, y2 in px), ``bbox_label``, ``ignore_flag``, ``mask``, and
            ``lmdb_path``.
        """
        if self._holds_samples:
            return super().get_data_info(idx)
        # Taken out: the pipeline changes it, and the same image may come twice.
        sample = self._read_ahead.pop(idx, None)
        if sample is None:
            sample = self._read_sample(int(self._image_ids()[idx]))
        sample['sample_idx'] = idx if idx >= 0 else len(self) + idx
        return sample

    def __getitems__(self, indices: Sequence[int]) -> list:
        """The samples of a batch, which is how the DataLoader asks for them.

        The same as ``[self[idx] for idx in indices]``, but what is read of a sample before its
        image is read for all of them first: decoding an image empties the processor's caches, after
        which this takes some 60 us, and one after the other 12 us (coco128). Only what the database
        holds is read: each sample then comes by ``self[idx]``, whatever a subclass does there.
        """
        if self._fully_initialized and not self._holds_samples and not self._parses_annotations:
            ids = self._image_ids()
            self._read_ahead = {idx: self._read_sample(int(ids[idx])) for idx in indices
                                if -len(ids) <= idx < len(ids)}
        try:
            return [self[idx] for idx in indices]
        finally:
            self._read_ahead = {}

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """As in ``CocoDataset``, with the database's folder as ``lmdb_path``.

        Called for every sample only if a subclass overrides it.
        """
        sample = super().parse_data_info(raw_data_info)
        sample['lmdb_path'] = self.lmdb
        return sample

    def _image_ids(self) -> Sequence[int]:
        """By position in the filtered data set."""
        return self.data_bytes.view(np.int64) if self.serialize_data else self.data_list

    @property
    def _holds_samples(self) -> bool:
        return self.proposal_file is not None

    def _read_sample(self, image_id: int) -> dict:
        if self._parses_annotations:
            image, annotations = self.store.annotations(image_id)
            image['img_id'] = image_id
            sample = self.parse_data_info(dict(raw_img_info=image, raw_ann_info=annotations))
            if isinstance(sample, dict) and isinstance(sample.get('img_path'), str):
                sample['img_path'] = PackedPath(sample['img_path'], self.lmdb, image_id)
            return sample
        record = self.store.instances(image_id)
        file_name, prefix, seg_map_path = record['file_name'], self.data_prefix, None
        if prefix.get('seg', None):
            seg_map_path = osp.join(prefix['seg'],
                                    file_name.rsplit('.', 1)[0] + self.seg_map_suffix)
        img_path = PackedPath(osp.join(prefix['img'], file_name), self.lmdb, image_id)
        sample = dict(img_path=img_path, img_id=image_id, seg_map_path=seg_map_path,
                      height=record['height'], width=record['width'])
        if self.return_classes:
            sample.update(text=self.metainfo['classes'], caption_prompt=self.caption_prompt,
                          custom_entities=True)
        labels, instances = self.cat2label, []
        for instance in record['instances']:
            label = labels.get(instance.pop('category_id'))
            if label is not None:
                instance['bbox_label'] = label
                instances.append(instance)
        sample['instances'] = instances
        sample['lmdb_path'] = self.lmdb
        return sample

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids as int64 in bytes, with the end of each, in mmengine's form of serialized data."""
        if self._holds_samples:
            return super()._serialize_data()
        ids = np.asarray(self.data_list, dtype=np.int64)
        self.data_list = []
        return ids.view(np.uint8), np.arange(1, len(ids) + 1) * ids.itemsize

    def _classes_of_database(self) -> dict:
        names = tuple(category['name'] for category in self._categories)
        if names == tuple(self.METAINFO['classes']):
            return {}
        colors = self.METAINFO['palette']
        return dict(classes=names, palette=[colors[i % len(colors)] for i in range(len(names))])

    def _selected_category_ids(self) -> list[int]:
        """Ids of the chosen classes in the database's order, which is what ``CocoDataset`` does."""
        if not self.labelled:
            return []
        classes = list(self._metainfo['classes'])
        ids = {category['name']: category['id'] for category in self._categories}
        unknown = [name for name in classes if name not in ids]
        if unknown:
            raise BpuError(f"metainfo['classes'] of CocoLMDBDataset names {unknown}, but "
                           f'{self.lmdb} has the categories {list(ids)}')
        if len(set(classes)) < len(classes):
            raise BpuError(f"metainfo['classes'] of CocoLMDBDataset: expected every name once, "
                           f'found {classes}')
        repeated = repeated_names([c for c in self._categories if c['name'] in set(classes)])
        if repeated:
            raise BpuError(f'{self.lmdb}: {describe_repeated_names(repeated)}, which shifts the '
                           'labels of others: rename or merge them and pack again')
        found = [c['name'] for c in self._categories if c['name'] in set(classes)]
        if found != classes:
            warnings.warn(f"{self.lmdb}: labels follow the order of the data set's categories, "
                          f'as in CocoDataset: {found}. metainfo names the classes {classes}: '
                          'labels will be shown under wrong names')
        return [c['id'] for c in self._categories if c['name'] in set(classes)]


def _check_boxes_are_resized(pipeline: Sequence) -> None:
    """Refuse to train on resized images with boxes of their full size."""
    kinds = [next((kind for kind in (LoadResizedImageFromLMDB, LoadAnnotations)
                   if is_step(step, kind)), None) for step in pipeline]
    if (LoadResizedImageFromLMDB in kinds and LoadAnnotations in
            kinds[kinds.index(LoadResizedImageFromLMDB):]):
        raise BpuError('the pipeline of CocoLMDBDataset loads annotations behind '
                       'LoadResizedImageFromLMDB, which would not resize their boxes: put '
                       'LoadAnnotations before it')


def _resolve(path: str, data_root: Optional[str]) -> str:
    """``path`` under ``data_root`` where it exists there, else as given."""
    if data_root and not osp.isabs(path):
        under_root = osp.join(data_root, path)
        if osp.exists(under_root) or not osp.exists(path):
            return under_root
    return path
