"""COCO evaluation against the annotations of a packed data set."""
from typing import Optional

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS

from mmdet_bpu.datasets.lmdb_store import open_store


def coco_api(path: str, sort_categories: bool = False) -> COCO:
    """mmdet's COCO object made from a packed data set instead of a JSON file.

    Args:
        path (str): Folder of the database.
        sort_categories (bool): Order the categories by id. Defaults to False.

    Returns:
        COCO: As after ``COCO(annotation_file)``.
    """
    api = COCO()
    api.dataset = open_store(path, fresh=True).to_coco()
    if sort_categories:
        api.dataset['categories'].sort(key=lambda category: category['id'])
    api.createIndex()
    # The aliases were made for the empty index.
    api.img_ann_map, api.cat_img_map = api.imgToAnns, api.catToImgs
    return api


@METRICS.register_module()
class CocoLMDBMetric(CocoMetric):
    """``CocoMetric`` with the ground truth of a packed data set: the same numbers, no JSON file.

    Stock ``CocoMetric`` without ``ann_file`` also runs on :class:`CocoLMDBDataset`, but it rebuilds
    the ground truth from the samples: it takes box areas for object areas (which moves mAP of
    small, medium and large objects), and forgets the annotations that the data set filters out.

    Args:
        lmdb (str): Folder of the database.
        sort_categories (bool): As in ``CocoMetric``. Defaults to False.
        ann_file (str, optional): Not read. Accepted, because a config that inherits a stock one
            still has it.
        **kwargs: All other arguments of ``CocoMetric``.

    Raises:
        BpuError: If the database cannot be used.
    """

    def __init__(self,
                 lmdb: str,
                 sort_categories: bool = False,
                 ann_file: Optional[str] = None,
                 **kwargs) -> None:
        super().__init__(ann_file=None, **kwargs)
        self._coco_api = coco_api(lmdb, sort_categories)
