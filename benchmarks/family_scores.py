"""Means and spreads of a head's last layers with which its stock decoding gives detections.

Both searches ask the stock head: they set the last layers, decode, and look at the boxes.
"""
import torch
from family_boxes import HeadRun
from family_outputs import LastLayers

CONFIDENT = 0.3  # score that the wanted boxes reach
WANTED = 80  # of them, of the image that has fewest
MOST_OFFERED = 1000  # boxes handed to NMS, so that thresholds of 0.001 leave a choice too
SPREADS = (2.0, 4.0, 8.0)  # of class logits, narrowest first
LEVELS = (-20.0, 6.0)  # between which the logit is searched that a class seldom exceeds
FAVOURED = 12  # one class in so many, where boxes need agreement about a class (pairs of corners)
DISFAVOUR = 4.0  # spreads by which the others' levels are lower
HALVINGS = 7  # to 0.2

BOX_SPREADS = (0.25, 0.5, 1.0, 2.0)
BOX_MEANS = (0.0, 1.0, 2.0, 4.0, 8.0)
# A good box is as wide and high in px, covers less of the image, and no other is so close to it.
SMALL, LARGE = 4.0, 0.5
BETTER = 1.1  # times as many good boxes, to prefer a candidate to one before it


def fit_scores(run: HeadRun, layers: LastLayers) -> None:
    """Give class logits the narrowest spread and the level with which enough boxes are confident.

    Every class exceeds one level at the same share of the positions, so all come equally often;
    only where no spread gives enough boxes, some classes come before the others.
    """
    for every in (1, FAVOURED):
        fitting = None
        for spread in SPREADS:
            low, high = LEVELS
            set_scores(layers, spread, high, every)
            if count(run) < WANTED:
                continue  # of a softmax, whose classes compete
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                set_scores(layers, spread, middle, every)
                low, high = (low, middle) if count(run) >= WANTED else (middle, high)
            fitting = spread, high, every
            set_scores(layers, *fitting)
            if offered(run) <= MOST_OFFERED:
                return
        if fitting:
            set_scores(layers, *fitting)
            return


def set_scores(layers: LastLayers, spread: float, level: float, every: int) -> None:
    """Set the channels of classes (one class in ``every`` first), and of a background opposite."""
    for layer, channels in layers.scores:
        first = channels.classes & (channels.number % every == 0)
        class_level = torch.where(first, level, level - DISFAVOUR * spread)
        mean = torch.where(channels.background, -level, layer.mean)
        layer.set(torch.where(channels.classes, class_level - spread * layer.high, mean),
                  torch.where(channels.classes | channels.background, spread, layer.spread))


def count(run: HeadRun) -> int:
    """Confident boxes before NMS, of the image that has fewest."""
    return min(int((boxes.scores >= CONFIDENT).sum())
               for boxes in run.boxes(with_nms=False)[0])


def offered(run: HeadRun) -> int:
    """Boxes before NMS, of the image that has most."""
    return max(len(boxes.scores) for boxes in run.boxes(with_nms=False)[0])


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
        best, most = (0.0, 1.0), good_boxes(run)
        for candidate in ((mean, spread) for mean in BOX_MEANS for spread in BOX_SPREADS):
            for layer in group:
                layer.set(*candidate)
            found = good_boxes(run)
            if found > BETTER * most:
                best, most = candidate, found
        for layer in group:
            layer.set(*best)
        changed |= best != (0.0, 1.0)
    return changed


def good_boxes(run: HeadRun) -> int:
    """Boxes before NMS, of all images, of a sensible size and different from each other."""
    total = 0
    for boxes in run.boxes(with_nms=False)[0]:
        sides = boxes.sides(run.shape)
        good = (sides >= SMALL).all(1) & (sides.prod(1) <= LARGE * run.shape[0] * run.shape[1])
        total += len((boxes.boxes[good] / SMALL).round().unique(dim=0))
    return total
