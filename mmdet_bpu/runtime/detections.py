"""Integers of the network as boxes in the picture, for the contract in model.deploy.json.

Needs numpy alone: of this package only :mod:`mmdet_bpu.runtime` and :mod:`mmdet_bpu.errors`.
"""
from typing import Any, Dict

import numpy as np

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.decoders import load_decoder
from mmdet_bpu.runtime.facts import COMMON, check_facts
from mmdet_bpu.runtime.outputs import output_tree
from mmdet_bpu.runtime.picture_frame import framed_facts, place, to_picture
from mmdet_bpu.runtime.score_voting import vote
from mmdet_bpu.runtime.suppression import suppressed


def detect(outputs: Dict[str, np.ndarray], contract: Dict[str, Any], width: int,
           height: int) -> Candidates:
    """Detect: dequantize, decode, move to the picture, suppress.

    Args:
        outputs (dict): Name to integers, as the executable gives them; maps are (1, C, H, W).
        contract (dict): Content of model.deploy.json.
        width (int): Width of the picture before it was resized, px.
        height (int): Its height, px.

    Returns:
        Candidates: A tuple of boxes (N, 4) float32 as x1, y1, x2, y2 in px of the picture, scores
        (N,) float32, labels (N,) int64; the best score first.

    Raises:
        BpuError: The contract lacks a fact, or the outputs are not those that it describes.
    """
    facts = checked_facts(contract)
    decoder = load_decoder(facts['family'])
    resize = contract['preprocessing']['resize']
    framed = framed_facts(facts, resize, place(resize, width, height))
    candidates = decoder.decode(output_tree(outputs, contract), framed)
    candidates = candidates._replace(
        boxes=to_picture(candidates.boxes, contract, width, height))
    found = suppressed(candidates, facts)
    if facts.get('score_voting'):
        found = vote(found, candidates)
    return found


def checked_facts(contract: Dict[str, Any]) -> Dict[str, Any]:
    """The post-processing part of a contract, complete.

    One without a family is of version 0.1, which knew DETR with sigmoid scores alone.

    Raises:
        BpuError: The family is not known, or a fact that its decoder needs is missing or odd.
    """
    facts = contract['postprocessing']
    if 'family' not in facts:
        facts = _facts_of_version_0_1(contract)
    check_facts(facts, {**COMMON, **load_decoder(facts['family']).FACTS})
    return facts


def _facts_of_version_0_1(contract: Dict[str, Any]) -> Dict[str, Any]:
    facts = contract['postprocessing']
    if facts.get('scores') != 'sigmoid':
        raise BpuError('contract, postprocessing.family: expected a name, found none, and scores '
                       f'by {facts.get("scores")!r}; without a family only sigmoid is known')
    resize = contract['preprocessing']['resize']
    return dict(family='detr', activation='sigmoid', num_classes=facts.get('num_classes'),
                max_per_img=facts.get('max_per_img'), min_bbox_size=None, nms=None,
                input_shape=[resize.get('height'), resize.get('width')])
