"""The annotations of an image as a data set needs them: a short record, quick to parse.

It is read and parsed for every sample, so that no process has to hold it. The annotation file's own
entries, with all their fields, are a record of their own.
"""
import orjson

from mmdet_bpu.datasets.dropped_annotations import why_dropped
from mmdet_bpu.datasets.lmdb_format import decode_json, encode_json


def sample_of(image: dict, annotations: list[dict]) -> dict:
    """Content of the record ``instances/<id>``.

    Args:
        image (dict): Entry of the annotation file.
        annotations (list[dict]): Its annotations, in the file's order.

    Returns:
        dict: ``file_name``, ``width`` and ``height`` (px), and ``instances`` as in a sample of
        ``CocoDataset``: ``bbox`` (x1, y1, x2, y2 in px), ``ignore_flag`` and, where there is a
        segmentation, ``mask``; but with ``category_id`` instead of ``bbox_label``. Without the
        annotations that ``CocoDataset`` drops, whatever its classes: see
        :func:`mmdet_bpu.datasets.dropped_annotations.why_dropped`.
    """
    width, height = image['width'], image['height']
    instances = []
    for annotation in annotations:
        if why_dropped(annotation, width, height) is not None:
            continue
        x, y, w, h = annotation['bbox']
        instance = dict(bbox=[x, y, x + w, y + h], category_id=annotation['category_id'],
                        ignore_flag=1 if annotation.get('iscrowd', False) else 0)
        if annotation.get('segmentation', None):
            instance['mask'] = annotation['segmentation']
        instances.append(instance)
    return dict(file_name=image['file_name'], width=width, height=height, instances=instances)


def encode_sample(image: dict, annotations: list[dict]) -> bytes:
    """The payload of the record ``instances/<id>``."""
    return encode_json(sample_of(image, annotations))


def decode_sample(payload) -> dict:
    """Inverse of :func:`encode_sample`, from any buffer."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        # What only Python's own parser takes: NaN in a mask, half surrogate pairs in a name.
        return decode_json(payload)
