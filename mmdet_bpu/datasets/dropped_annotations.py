"""Which annotations training never sees: one predicate, for packed samples and for the report."""
from typing import Collection, Optional

MIN_SIDE = 1  # px; a narrower box is dropped
EMPTY = 'box is empty'
OUTSIDE = 'box is outside its image'
MARKED = 'annotation is marked "ignore"'
NO_AREA = 'area is not above 0'
NARROW = f'box is under {MIN_SIDE} px wide or high'
UNKNOWN = 'annotation of an unknown category'
DROPPED = (EMPTY, OUTSIDE, MARKED, NO_AREA, NARROW, UNKNOWN)


def why_dropped(annotation: dict, width: float, height: float,
                category_ids: Optional[Collection] = None) -> Optional[str]:
    """Why ``CocoDataset`` makes no instance of an annotation (its ``parse_data_info``).

    Args:
        annotation (dict): A checked entry of an annotation file.
        width (float): Of its image by the annotation file, px.
        height (float): Of its image by the annotation file, px.
        category_ids (Collection, optional): Those of the data set. Defaults to None: any will do.

    Returns:
        str | None: One of ``DROPPED``, the first that applies; None if it becomes an instance.
    """
    if annotation.get('ignore', False):
        return MARKED
    x, y, w, h = annotation['bbox']
    overlap_x = max(0, min(x + w, width) - max(x, 0))
    overlap_y = max(0, min(y + h, height) - max(y, 0))
    if overlap_x * overlap_y == 0:
        if w <= 0 or h <= 0:
            return EMPTY
        # Two sides far below a pixel may have a product of 0.
        return NARROW if overlap_x and overlap_y else OUTSIDE
    if annotation['area'] <= 0:
        return NO_AREA
    if w < MIN_SIDE or h < MIN_SIDE:
        return NARROW
    if category_ids is not None and annotation['category_id'] not in category_ids:
        return UNKNOWN
    return None
