"""Detections drawn into pictures, and pictures side by side."""
from dataclasses import dataclass
from typing import List, Sequence, Tuple

import cv2
import numpy as np

# Text of a label needs some pixels: smaller pictures are enlarged by a whole factor to this side.
READABLE_SIDE = 480  # px
FONT, FONT_SCALE, MARGIN = cv2.FONT_HERSHEY_SIMPLEX, 0.5, 4
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
JPEG_QUALITY = 85
# Hues of neighbouring labels lie far apart: steps of the golden ratio.
GOLDEN = 0.618034


@dataclass
class Detections:
    """Boxes of one picture, the best score first.

    Attributes:
        boxes (np.ndarray): (N, 4) float32, x1, y1, x2, y2 in px.
        scores (np.ndarray): (N,) float32.
        labels (np.ndarray): (N,) integers.
    """
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def above(self, threshold: float) -> 'Detections':
        """Those with at least this score."""
        kept = self.scores >= threshold
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept])

    def as_rows(self, names: Sequence[str]) -> List[dict]:
        """Plain form for JSON: label, name, score, bbox (x1, y1, x2, y2 in px)."""
        return [dict(label=int(label), name=name_of(label, names), score=float(score),
                     bbox=[float(v) for v in box])
                for box, score, label in zip(self.boxes, self.scores, self.labels)]


def name_of(label: int, names: Sequence[str]) -> str:
    """Class name of a label; its number where names are not known."""
    return names[int(label)] if int(label) < len(names) else str(int(label))


def color_of(label: int) -> Tuple[int, int, int]:
    """A colour (blue, green, red) that differs between neighbouring labels."""
    hue = int(label * GOLDEN % 1 * 180)
    pixel = cv2.cvtColor(np.uint8([[[hue, 200, 230]]]), cv2.COLOR_HSV2BGR)[0, 0]
    return tuple(int(v) for v in pixel)


def draw(image: np.ndarray, found: Detections, names: Sequence[str]) -> np.ndarray:
    """Boxes with class names and scores in a copy of a picture.

    Args:
        image (np.ndarray): (height, width, 3) uint8, blue first.
        found (Detections): In px of ``image``.
        names (Sequence[str]): Class names by label.

    Returns:
        np.ndarray: The picture, enlarged by a whole factor if it is small.
    """
    factor = max(1, -(-READABLE_SIDE // max(image.shape[:2])))
    canvas = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    for index in range(len(found.scores))[::-1]:  # the best last, on top
        x1, y1, x2, y2 = (int(round(float(v) * factor)) for v in found.boxes[index])
        label = found.labels[index]
        color = color_of(label)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, 2)
        text = f'{name_of(label, names)} {found.scores[index]:.2f}'
        _write(canvas, text, x1, y1, color, BLACK)
    return canvas


def _write(canvas: np.ndarray, text: str, x: int, y: int, background, color) -> None:
    """Text on a filled plate whose lower left corner is (x, y), moved inside the picture."""
    (width, height), base = cv2.getTextSize(text, FONT, FONT_SCALE, 1)
    plate = height + base + MARGIN
    x = max(0, min(x, canvas.shape[1] - width - MARGIN))
    y = max(y, plate)
    cv2.rectangle(canvas, (x, y - plate), (x + width + MARGIN, y), background, cv2.FILLED)
    cv2.putText(canvas, text, (x + MARGIN // 2, y - base), FONT, FONT_SCALE, color, 1, cv2.LINE_AA)


def side_by_side(pictures: Sequence[Tuple[str, np.ndarray]]) -> np.ndarray:
    """Pictures of one height in a row, each under its title.

    Args:
        pictures (Sequence[tuple[str, np.ndarray]]): Title and (height, width, 3) uint8 picture.

    Returns:
        np.ndarray: One picture.
    """
    columns = []
    for title, picture in pictures:
        bar = np.zeros((28, picture.shape[1], 3), np.uint8)
        cv2.putText(bar, title, (MARGIN, 19), FONT, FONT_SCALE, WHITE, 1, cv2.LINE_AA)
        columns += [np.concatenate([bar, picture]),
                    np.zeros((picture.shape[0] + 28, MARGIN, 3), np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def jpeg_of(picture: np.ndarray) -> bytes:
    """A (height, width, 3) uint8 picture, blue first, as a JPEG file."""
    encoded, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert encoded, picture.shape
    return data.tobytes()
