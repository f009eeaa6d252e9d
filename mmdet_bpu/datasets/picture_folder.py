"""A folder of pictures as a data set without labels."""
import os.path as osp
from typing import Any, Callable, List, Optional, Sequence

from mmdet.datasets.base_det_dataset import BaseDetDataset
from mmdet.registry import DATASETS

from mmdet_bpu.datasets.picture_files import find_pictures, picture_size
from mmdet_bpu.datasets.without_annotations import refuse_annotations
from mmdet_bpu.errors import BpuError


@DATASETS.register_module()
class PictureFolder(BaseDetDataset):
    """Every picture of a folder, at any depth, in the order of their names; nobody has annotated them.

    For calibration, and for QAT with ``bpu.qat.labels=False``.

    Args:
        folder (str): The folder, relative to ``data_root`` or to the working folder.
        pipeline (Sequence[dict | Callable]): As in ``CocoDataset``, without ``LoadAnnotations``. Defaults
            to ().
        data_root (str, optional): As in ``CocoDataset``. Defaults to None.
        ann_file (str): Not read. Accepted, because a config that inherits a stock one still has it.
        filter_cfg (dict, optional): Likewise.
        data_prefix (dict, optional): Likewise.
        **kwargs: All other arguments of ``BaseDetDataset``.

    Attributes:
        labelled (bool): False.

    Raises:
        BpuError: No such folder, no picture in it, or a pipeline that loads annotations.
    """

    labelled = False

    def __init__(self, folder: str, pipeline: Sequence[dict | Callable] = (),
                 data_root: Optional[str] = None, ann_file: str = '',
                 filter_cfg: Optional[dict] = None, data_prefix: Optional[dict] = None,
                 **kwargs) -> None:
        self.folder = folder if data_root is None else osp.join(data_root, folder)
        refuse_annotations(pipeline, type(self).__name__, self.folder)
        super().__init__(pipeline=pipeline, data_prefix={}, **kwargs)

    def load_data_list(self) -> List[dict]:
        """A sample for each picture; its size is read when it is asked for."""
        return [dict(img_path=str(picture.path), img_id=number, instances=[])
                for number, picture in enumerate(find_pictures(self.folder))]

    def get_data_info(self, idx: int) -> dict:
        """Sample ``idx`` before the pipeline.

        Returns:
            dict: ``img_path``, ``img_id``, ``height`` and ``width`` (px), and no ``instances``.

        Raises:
            BpuError: It is no picture.
        """
        sample = super().get_data_info(idx)
        sample['height'], sample['width'] = picture_size(sample['img_path'])
        return sample

    def prepare_data(self, idx: int) -> Any:
        """Sample ``idx`` after the pipeline.

        Raises:
            BpuError: The picture is damaged.
        """
        try:
            return super().prepare_data(idx)
        except AssertionError as error:  # of mmcv's loader
            if 'failed to load image' not in str(error):
                raise
            raise BpuError(f'picture {self.get_data_info(idx)["img_path"]} cannot be read: it begins as a picture and is '
                           'damaged; put a whole one there, or take it out') from error
