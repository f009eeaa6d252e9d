"""Centers as peaks of a heat map, with a size and an offset each: CenterNet."""
from typing import Any, Dict, List

import numpy as np

from mmdet_bpu.runtime.box_coders import around
from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.facts import COUNT
from mmdet_bpu.runtime.heatmaps import peaks_of
from mmdet_bpu.runtime.outputs import check_levels, check_maps

FACTS = dict(topk=COUNT, kernel=COUNT)


def decode(tree: List[Any], facts: Dict[str, Any]) -> Candidates:
    """Tree, each a list of one map: heat after its sigmoid (1, classes, H, W); width and height
    (1, 2, H, W) and offsets of the center, x and y, (1, 2, H, W), in px of the map.

    Boxes are not clipped.
    """
    check_levels(tree, 1, parts=[3])
    (heat, ), (sizes, ), (offsets, ) = tree
    check_maps([heat, sizes, offsets], [facts['num_classes'], 2, 2])
    peaks = peaks_of(heat, facts['topk'], facts['kernel'])
    centers = np.stack([peaks.columns, peaks.rows], axis=1) + peaks.values_of(offsets)
    height, width = facts['input_shape']
    step = np.float32([width / heat.shape[3], height / heat.shape[2]])
    boxes = around(centers.astype(np.float32), peaks.values_of(sizes)) * np.tile(step, 2)
    return Candidates(boxes, peaks.scores, peaks.labels)
