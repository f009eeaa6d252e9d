"""Load images from a packed COCO data set inside an mmdet pipeline."""
from typing import Optional

import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.registry import TRANSFORMS

from mmdet_bpu.datasets.decoding import DecodeError, check_decoder, decode_image
from mmdet_bpu.datasets.lmdb_store import open_store
from mmdet_bpu.errors import BpuError


@TRANSFORMS.register_module()
class LoadImageFromLMDB(BaseTransform):
    """Decode an image of a packed COCO data set; the result is that of ``LoadImageFromFile``.

    The bytes go from the mapped database to the decoder without a copy.

    Required Keys:

    - img_id
    - lmdb_path (unless ``lmdb`` is given)

    Modified Keys:

    - img
    - img_shape
    - ori_shape

    Args:
        to_float32 (bool): Return float32 instead of uint8. Defaults to False.
        color_type (str): Flag of :func:`mmcv.imfrombytes`; ``'color'`` rotates as the EXIF
            orientation says. Defaults to 'color'.
        imdecode_backend (str): Backend of :func:`mmcv.imfrombytes`, or 'simplejpeg': libjpeg-turbo
            for JPEG files in colour, with the pixels of 'cv2', and 'cv2' for the rest. Defaults to
            'cv2'.
        ignore_empty (bool): Return None where an image is missing or cannot be decoded, instead of
            raising. Defaults to False.
        lmdb (str, optional): Folder of the database, for data sets that do not name it themselves.
            Defaults to None.
        backend_args (None): Accepted as in ``LoadImageFromFile``, where it selects a storage.

    Raises:
        BpuError: If a backend or a colour type is unknown, or the backend's package is missing.
    """

    def __init__(self,
                 to_float32: bool = False,
                 color_type: str = 'color',
                 imdecode_backend: str = 'cv2',
                 ignore_empty: bool = False,
                 lmdb: Optional[str] = None,
                 backend_args: None = None) -> None:
        if backend_args is not None:
            raise BpuError(f'{type(self).__name__} reads from the database only: expected '
                           f'backend_args=None, found {backend_args}')
        check_decoder(type(self).__name__, imdecode_backend, color_type)
        self.to_float32 = to_float32
        self.color_type = color_type
        self.imdecode_backend = imdecode_backend
        self.ignore_empty = ignore_empty
        self.lmdb = lmdb

    def transform(self, results: dict) -> Optional[dict]:
        """Load the image ``results['img_id']``.

        Args:
            results (dict): Sample of :class:`CocoLMDBDataset`.

        Returns:
            dict | None: The sample with ``img`` ``(H, W, 3)``, BGR, and its shapes.

        Raises:
            BpuError: If the sample names no database, or the image is missing, damaged or cannot be
                decoded (each unless ``ignore_empty``, but for the first).
        """
        path = self.lmdb or results.get('lmdb_path')
        if path is None:
            raise BpuError(f"{type(self).__name__}: the sample has no 'lmdb_path'; use it with "
                           "CocoLMDBDataset, or give the transform lmdb='...'")
        try:
            with open_store(path).image(results['img_id']) as content:
                return self._load(results, content)
        except BpuError as error:
            if self.ignore_empty:
                return None
            if isinstance(error, DecodeError):
                raise BpuError(f"{path}: image {results['img_id']} {error}; replace the file and "
                               'pack again') from error
            raise

    def _load(self, results: dict, content: memoryview) -> dict:
        """Put the image into the sample. ``content`` is valid during the call only."""
        image = decode_image(content, self.color_type, self.imdecode_backend)
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(to_float32={self.to_float32}, '
                f"color_type='{self.color_type}', imdecode_backend='{self.imdecode_backend}', "
                f'ignore_empty={self.ignore_empty}, lmdb={self.lmdb!r})')


def read_images_from_lmdb(pipeline):
    """A pipeline with every ``LoadImageFromFile`` replaced by :class:`LoadImageFromLMDB`.

    Stock pipelines start with ``LoadImageFromFile``; its decoding options are kept, its storage
    options dropped. Nested pipelines (``transforms=[[...], [...]]``) are followed.

    Args:
        pipeline (list | dict | Callable): Configs or built transforms.

    Returns:
        list | dict | Callable: The same structure; the input is left as it is.
    """
    if isinstance(pipeline, (list, tuple)):
        return [read_images_from_lmdb(item) for item in pipeline]
    if isinstance(pipeline, dict):
        if _is_file_loader(pipeline.get('type')):
            storage = ('type', 'file_client_args', 'backend_args')
            options = {k: v for k, v in pipeline.items() if k not in storage}
            return dict(type=LoadImageFromLMDB, **options)
        return {k: read_images_from_lmdb(v) if k == 'transforms' else v
                for k, v in pipeline.items()}
    if type(pipeline) is LoadImageFromFile:
        return LoadImageFromLMDB(pipeline.to_float32, pipeline.color_type,
                                 pipeline.imdecode_backend, pipeline.ignore_empty)
    return pipeline


def _is_file_loader(kind) -> bool:
    if isinstance(kind, str):
        return kind.rpartition('.')[2] == LoadImageFromFile.__name__
    return kind is LoadImageFromFile
