"""COCO in LMDB: packing, reading, and the data set, transforms and metric that mmdet sees.

Importing this package registers ``CocoLMDBDataset``, ``LoadImageFromLMDB``,
``LoadResizedImageFromLMDB``, ``Letterbox``, ``CameraResize``, ``CameraColors``,
``CocoLMDBMetric``, ``PictureFolder``, ``WithoutAnnotations`` and the storage backend ``coco_lmdb``
of mmengine.
"""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)
from mmdet_bpu.datasets.camera_pictures import CameraColors, CameraResize
from mmdet_bpu.datasets.coco_lmdb import CocoLMDBDataset
from mmdet_bpu.datasets.coco_lmdb_metric import CocoLMDBMetric, coco_api
from mmdet_bpu.datasets.letterbox import Letterbox
from mmdet_bpu.datasets.lmdb_backend import CocoLMDBBackend
from mmdet_bpu.datasets.lmdb_packer import pack_coco
from mmdet_bpu.datasets.lmdb_store import CocoStore, open_store
from mmdet_bpu.datasets.loading import LoadImageFromLMDB, read_images_from_lmdb
from mmdet_bpu.datasets.picture_folder import PictureFolder
from mmdet_bpu.datasets.scaled_loading import LoadResizedImageFromLMDB
from mmdet_bpu.datasets.without_annotations import WithoutAnnotations

__all__ = [
    'CameraColors', 'CameraResize', 'CocoLMDBBackend', 'CocoLMDBDataset', 'CocoLMDBMetric',
    'CocoStore', 'Letterbox',
    'LoadImageFromLMDB', 'LoadResizedImageFromLMDB', 'PictureFolder', 'WithoutAnnotations',
    'coco_api', 'open_store', 'pack_coco', 'read_images_from_lmdb'
]
