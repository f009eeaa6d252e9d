"""COCO evaluation against the annotations of a packed data set."""
from typing import Optional, Sequence

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS

from mmdet_bpu.datasets.coco_evaluation import (describe_repeated_names, make_evaluable,
                                                repeated_names)
from mmdet_bpu.datasets.lmdb_store import open_store
from mmdet_bpu.errors import BpuError


def coco_api(path: str, sort_categories: bool = False) -> COCO:
    """mmdet's COCO object made from a packed data set instead of a JSON file.

    Args:
        path (str): Folder of the database.
        sort_categories (bool): Order the categories by id. Defaults to False.

    Returns:
        COCO: As after ``COCO(annotation_file)``, but what pycocotools could not evaluate is made so
        that it can: see :func:`mmdet_bpu.datasets.coco_evaluation.make_evaluable`.

    Raises:
        BpuError: If the database cannot be used, or an ``iscrowd`` is neither 0 nor 1.
    """
    api = COCO()
    api.dataset = open_store(path, fresh=True).to_coco()
    try:
        make_evaluable(api.dataset)
    except BpuError as error:
        raise BpuError(f'{path}: {error} in the annotation file and pack it again') from None
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
        BpuError: If the database cannot be used. When the data set's classes are set, which is
            before the first step: if the database lacks one, or two of its categories share the
            name of one.
    """

    def __init__(self,
                 lmdb: str,
                 sort_categories: bool = False,
                 ann_file: Optional[str] = None,
                 **kwargs) -> None:
        super().__init__(ann_file=None, **kwargs)
        self._coco_api = coco_api(lmdb, sort_categories)
        self._lmdb = lmdb

    @property
    def dataset_meta(self) -> Optional[dict]:
        """Meta information of the data set, its ``classes`` among them."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._check_classes((dataset_meta or {}).get('classes') or ())
        self._dataset_meta = dataset_meta

    def _check_classes(self, classes: Sequence[str]) -> None:
        """Refuse classes whose labels would be those of other categories, or of none."""
        categories = self._coco_api.dataset['categories']
        names = {category['name'] for category in categories}
        unknown = [name for name in classes if name not in names]
        if unknown:
            raise BpuError(f'CocoLMDBMetric: the data set has the classes {unknown}, which '
                           f'{self._lmdb} lacks: give it the database of the data set, which has '
                           f'{sorted(names)}')
        repeated = repeated_names([c for c in categories if c['name'] in set(classes)])
        if repeated:
            raise BpuError(f'{self._lmdb}: {describe_repeated_names(repeated)}, so labels cannot '
                           'be told: rename or merge them and pack again')
