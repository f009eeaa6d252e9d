"""Fixtures of tests that compare the host's decoders with stock heads."""
import sys

import numpy as np
import pytest

from tests.quadratic_nms import QUADRATIC_OPERATORS

SCORE_TOLERANCE = 1e-6  # relative: a few units in the last place of float32
BOX_TOLERANCE = 1e-3  # px, and 1e-6 of boxes of tens of thousands of px, which are not clipped
# Scores that are nearer to each other may come in either order: the exponentials of torch and of
# numpy differ in the last place, and torch does not say how it orders equal scores.
CLEAR = 2 * SCORE_TOLERANCE


@pytest.fixture
def stock_suppression(monkeypatch):
    """Stock heads suppress by the quadratic oracles, whatever mmcv is installed."""
    import mmdet_bpu.openmmlab  # noqa: F401
    import mmcv.ops  # noqa: F401
    monkeypatch.setattr(sys.modules['mmcv.ops.nms'], 'ext_module', QUADRATIC_OPERATORS)


@pytest.fixture(scope='session')
def assert_same():
    """Function (found, boxes, scores, labels): the same detections in the same order."""

    def check(found, boxes, scores, labels):
        assert len(found.scores) == len(scores)
        np.testing.assert_allclose(found.scores, scores, rtol=SCORE_TOLERANCE, atol=0)
        apart = np.abs(np.diff(scores)) > CLEAR * scores[1:]
        clear = np.concatenate([[True], apart]) & np.concatenate([apart, [True]])
        assert clear.mean() > 0.95
        np.testing.assert_array_equal(found.labels[clear], labels[clear])
        np.testing.assert_allclose(found.boxes[clear], boxes[clear], rtol=1e-6, atol=BOX_TOLERANCE)
        assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (
            np.float32, np.float32, np.int64)

    return check
