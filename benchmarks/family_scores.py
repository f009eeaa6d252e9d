"""Spread and level of class logits with which a stock head's own decoding gives enough boxes."""
from typing import NamedTuple

import torch
from family_boxes import HeadRun
from family_outputs import LastLayers

CONFIDENT = 0.3  # score that the wanted boxes reach
WANTED = 80  # of them, of the image that has fewest
MOST_OFFERED = 1000  # boxes handed to NMS, so that thresholds of 0.001 leave a choice too
SPREADS = (2.0, 4.0, 8.0)  # of class logits, narrowest first
LEVELS = (-20.0, 6.0)  # between which the logit is searched that a class seldom exceeds
HALVINGS = 7  # to 0.2
# Where boxes need agreement about a class (pairs of corners), so many classes come first: the
# levels of the others are so many spreads lower.
FAVOURED = 7
DISFAVOUR = 4.0


class Look(NamedTuple):
    """What a head gives before NMS."""
    confident: int  # boxes of the image that has fewest
    offered: int  # boxes of the image that has most

    @property
    def enough(self) -> bool:
        """Whether there are enough boxes."""
        return self.confident >= WANTED

    @property
    def rank(self) -> tuple[int, int]:
        """To compare by: enough boxes first, then few others."""
        return min(self.confident, WANTED), -self.offered


def look(run: HeadRun) -> Look:
    """Decode and count."""
    scores = [boxes.scores for boxes in run.boxes(with_nms=False)[0]]
    return Look(min(int((score >= CONFIDENT).sum()) for score in scores), max(map(len, scores)))


def fit_scores(run: HeadRun, layers: LastLayers) -> None:
    """Give class logits the narrowest spread, and a level, with which enough boxes are confident.

    Every class exceeds the level at the same share of the positions, so all come equally often;
    only where no spread gives enough boxes, some classes come before the others.
    """
    best, best_look = None, Look(-1, 0)
    for every in (1, max(1, run.head.num_classes // FAVOURED)):
        for spread in SPREADS:
            low, high = LEVELS
            for _ in range(HALVINGS):
                level = (low + high) / 2
                set_scores(layers, spread, level, every)
                seen = look(run)
                if seen.rank > best_look.rank:
                    best, best_look = (spread, level, every), seen
                if seen.enough and seen.offered <= MOST_OFFERED:
                    return
                if not seen.enough and seen.offered > MOST_OFFERED:
                    break  # a wider spread has fewer of the others
                low, high = (low, level) if seen.enough else (level, high)
        if best_look.enough:
            break
    set_scores(layers, *best)


def set_scores(layers: LastLayers, spread: float, level: float, every: int) -> None:
    """Set the channels of classes (one class in ``every`` first), and of a background opposite."""
    for layer, channels in layers.scores:
        first = channels.classes & (channels.number % every == 0)
        class_level = torch.where(first, level, level - DISFAVOUR * spread)
        mean = torch.where(channels.background, -level, layer.mean)
        layer.set(torch.where(channels.classes, class_level - spread * layer.high, mean),
                  torch.where(channels.classes | channels.background, spread, layer.spread))
