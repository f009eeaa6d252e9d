"""The first pictures of a config's test data, as its pipeline loads them."""
from typing import Any, List, NamedTuple

import numpy as np
from mmengine.config import Config

from mmdet_bpu.engine.foreign_errors import in_one_line
from mmdet_bpu.engine.val_images import loader_of
from mmdet_bpu.errors import BpuError


class SamplePicture(NamedTuple):
    """A picture of the data set.

    Attributes:
        name (str): End of its path, or its number.
        image (np.ndarray): (height, width, 3) uint8, blue first; as the pipeline's first steps load it.
    """
    name: str
    image: np.ndarray


def sample_pictures(cfg: Config, count: int) -> List[SamplePicture]:
    """At most ``count`` pictures of the test data, else of the validation data.

    Args:
        cfg (Config): Completed config.
        count (int): 1 or more.

    Raises:
        BpuError: There are no such data, their files are absent, or a picture cannot be loaded.
    """
    field = next((name for name in ('test_dataloader', 'val_dataloader') if cfg.get(name)), None)
    if field is None:
        raise BpuError('field test_dataloader: expected the pictures to draw, found none')
    dataset = loader_of(cfg, field).dataset
    if not hasattr(dataset, 'get_data_info') or not hasattr(dataset, 'pipeline'):
        raise BpuError(f'field {field}.dataset: expected a data set with a pipeline, whose pictures can '
                       f'be drawn, found {type(dataset).__name__}')
    if not len(dataset):
        raise BpuError(f'field {field}.dataset: expected pictures to draw, found none in it')
    return [_loaded(dataset, index, field) for index in range(min(count, len(dataset)))]


def _loaded(dataset: Any, index: int, field: str) -> SamplePicture:
    """What the first steps of the pipeline load."""
    try:
        data = dataset.get_data_info(index)
        path = str(data.get('img_path') or data.get('img_id', index))
        for transform in dataset.pipeline.transforms:
            data = transform(data)
            if 'img' in data:
                return SamplePicture(path.replace('\\', '/').rpartition('/')[2],
                                     np.ascontiguousarray(data['img']).astype(np.uint8))
    except BpuError:
        raise
    except Exception as error:  # data and transforms of a user fail in their own ways
        raise BpuError(f'field {field}.dataset: picture {index} cannot be loaded: '
                       f'{in_one_line(error)}') from error
    raise BpuError(f'field {field}.dataset.pipeline: expected a step that loads a picture, found none')
