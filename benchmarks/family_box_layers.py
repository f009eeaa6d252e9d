"""Mean and spread of a head's box layers with which its stock decoding gives sensible boxes."""
from family_boxes import HeadRun
from family_outputs import LastLayers

SPREADS = (0.25, 0.5, 1.0, 2.0)
MEANS = (0.0, 1.0, 2.0, 4.0, 8.0)
UNCHANGED = (0.0, 1.0)
# A good box is as wide and high in px, covers less of the image, and no other is so close to it.
SMALL, LARGE = 4.0, 0.5
BETTER = 1.1  # times as many good boxes, to prefer a candidate to one before it


def fit_boxes(run: HeadRun, layers: LastLayers) -> bool:
    """Give the layers of boxes the mean and spread with which most boxes are good ones.

    A centre map predicts sizes in cells, a point distances in strides, an anchor logarithms of
    factors: which it is shows in the boxes. Layers whose mean changes none (score factors) keep
    mean 0 and variance 1.

    Returns:
        bool: Whether something was changed.
    """
    changed = False
    for group in layers.others:
        best, most = UNCHANGED, good_boxes(run)
        for candidate in ((mean, spread) for mean in MEANS for spread in SPREADS):
            for layer in group:
                layer.set(*candidate)
            found = good_boxes(run)
            if found > BETTER * most:
                best, most = candidate, found
        for layer in group:
            layer.set(*best)
        changed |= best != UNCHANGED
    return changed


def good_boxes(run: HeadRun) -> int:
    """Boxes before NMS, of all images, of a sensible size and different from each other."""
    total = 0
    for boxes in run.boxes(with_nms=False)[0]:
        sides = boxes.sides(run.shape)
        good = (sides >= SMALL).all(1) & (sides.prod(1) <= LARGE * run.shape[0] * run.shape[1])
        total += len((boxes.boxes[good] / SMALL).round().unique(dim=0))
    return total
