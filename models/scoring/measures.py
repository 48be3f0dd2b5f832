"""Measures of an image and of a caption that need no model. Each is a plain function of its input alone: of an
image, uint8 [H, W, 3], or of a caption."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin

MAX_SIDE = 512
"""px: images are measured at most this large, so that numbers of large and of small images compare."""
COLOUR_TOLERANCE = 8
"""Levels of 255 by which a channel may differ within one colour of a border: JPEG's noise."""
LINES_AT_ONCE = 8
"""Lines that are searched for a border's end together: few, since most borders are narrow."""


def reduced(rgb_HWC: np.ndarray) -> np.ndarray:
    """The image with its longer side at most MAX_SIDE px; uint8 [H, W, 3]."""
    height, width = rgb_HWC.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(rgb_HWC)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(rgb_HWC, size, interpolation=cv2.INTER_AREA)


def grey(rgb_HWC: np.ndarray) -> np.ndarray:
    """Luma, uint8 [H, W]."""
    return cv2.cvtColor(rgb_HWC, cv2.COLOR_RGB2GRAY)


def sharpness(rgb_HWC: np.ndarray) -> float:
    """Variance of the Laplacian of the luma: under about 50 an image looks blurred."""
    return float(cv2.Laplacian(grey(rgb_HWC), cv2.CV_32F).astype(np.float64).var())


def colourfulness(rgb_HWC: np.ndarray) -> float:
    """Hasler and Süsstrunk (2003): 0 for grey, 15 slightly, 45 averagely, 110 extremely colourful."""
    red, green, blue = (rgb_HWC[..., channel].astype(np.float64) for channel in range(3))
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    deviation = np.hypot(red_green.std(), yellow_blue.std())
    return float(deviation + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def entropy(rgb_HWC: np.ndarray) -> float:
    """Bits that a pixel's luma holds by its frequency in the image, 0 to 8."""
    counts = np.bincount(grey(rgb_HWC).ravel(), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def border(rgb_HWC: np.ndarray) -> float:
    """Share of the area in rows and columns at the edges that have one colour, 0 to 1: frames, letterboxes. 1 for an
    image of one colour."""
    height, width = rgb_HWC.shape[:2]
    rows = _inner_length(rgb_HWC)
    columns = _inner_length(rgb_HWC.swapaxes(0, 1))
    return 1 - rows * columns / (height * width)


def _inner_length(lines: np.ndarray) -> int:
    """Lines, uint8 [N, L, 3], from the first to the last that is not of the colour that its edge of the image has."""
    first = _first_inner(lines)
    return max(0, len(lines) - first - _first_inner(lines[::-1]))


def _first_inner(lines: np.ndarray) -> int:
    colour = lines[0, 0].astype(np.int16)
    for start in range(0, len(lines), LINES_AT_ONCE):
        difference = np.abs(lines[start : start + LINES_AT_ONCE].astype(np.int16) - colour)
        is_inner = (difference > COLOUR_TOLERANCE).any(axis=(1, 2))
        if is_inner.any():
            return start + int(is_inner.argmax())
    return len(lines)


def blank(rgb_HWC: np.ndarray) -> float:
    """Share of the pixels that have the most frequent colour, of 4,096 (4 bits a channel), 0 to 1."""
    colours = (rgb_HWC >> 4).astype(np.int32)
    counts = np.bincount((colours[..., 0] << 8 | colours[..., 1] << 4 | colours[..., 2]).ravel())
    return float(counts.max() / counts.sum())


def text_edges(rgb_HWC: np.ndarray) -> float:
    """Share of the area in boxes that look like lines of text, 0 to 1: wide, low, and densely crossed by strong edges.

    The edges of letters stand close together, so that they merge when gaps of a letter's width are closed.
    """
    luma = grey(rgb_HWC)
    gradient = cv2.morphologyEx(luma, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    threshold, edges = cv2.threshold(gradient, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    if threshold < MIN_EDGE:
        return 0.0
    joined = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((1, 9), np.uint8))
    _, _, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=4)
    area = sum(_text_area(edges, box) for box in boxes[1:])
    return min(1.0, area / luma.size)


MIN_EDGE = 12  # levels: below, the strongest edges of an image are noise
MIN_LINE_HEIGHT, MAX_LINE_HEIGHT = 6, 64  # px of an image of MAX_SIDE
MIN_LINE_RATIO = 2.0  # width / height: some letters
MIN_EDGE_SHARE, MIN_CROSSINGS = 0.35, 0.5  # of a box; of the height, per letter-wide step along the line


def _text_area(edges: np.ndarray, box: np.ndarray) -> int:
    """The area of a component's box if it looks like a line of text, else 0."""
    left, top, width, height = (int(number) for number in box[:4])
    if not MIN_LINE_HEIGHT <= height <= MAX_LINE_HEIGHT or width < MIN_LINE_RATIO * height:
        return 0
    inside = edges[top : top + height, left : left + width] > 0
    crossings = np.count_nonzero(inside[:, 1:] & ~inside[:, :-1]) / height  # of the mean row
    is_text = inside.mean() >= MIN_EDGE_SHARE and crossings >= MIN_CROSSINGS * width / height
    return width * height if is_text else 0


# Annex K of ITU T.81: the table of luma at quality 50, whose sums over all qualities tell them apart.
_LUMA_50 = np.array(
    [
        "16",
        "11",
        "10",
        "16",
        "24",
        "40",
        "51",
        "61",
        "12",
        "12",
        "14",
        "19",
        "26",
        "58",
        "60",
        "55",
        "14",
        "13",
        "16",
        "24",
        "40",
        "57",
        "69",
        "56",
        "14",
        "17",
        "22",
        "29",
        "51",
        "87",
        "80",
        "62",
        "18",
        "22",
        "37",
        "56",
        "68",
        "109",
        "103",
        "77",
        "24",
        "35",
        "55",
        "64",
        "81",
        "104",
        "113",
        "92",
        "49",
        "64",
        "78",
        "87",
        "103",
        "121",
        "120",
        "101",
        "72",
        "92",
        "95",
        "98",
        "112",
        "100",
        "103",
        "99",
    ],
    int,
)


def _table_sum(quality: int) -> int:
    """The sum of libjpeg's table of luma at a quality from 1 to 100."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return int(np.clip((_LUMA_50 * scale + 50) // 100, 1, 255).sum())


_SUMS = np.array([_table_sum(quality) for quality in range(1, 101)])


def jpeg_quality(data: bytes) -> float | None:
    """Estimates the quality, 1 to 100, with which libjpeg would have written a JPEG's table of luma; None for other
    formats and for tables that can't be read."""
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            tables = image.quantization if isinstance(image, JpegImagePlugin.JpegImageFile) else {}
    except (OSError, SyntaxError, ValueError):  # decoders of other libraries may read what Pillow does not
        return None
    return float(np.abs(_SUMS - sum(tables[0])).argmin() + 1) if 0 in tables else None


IMAGE_MEASURES: Mapping[str, Callable[[np.ndarray], float]] = {
    "sharpness": sharpness,
    "colourfulness": colourfulness,
    "entropy": entropy,
    "border": border,
    "blank": blank,
    "text_edges": text_edges,
}


def measure_image(rgb_HWC: np.ndarray, data: bytes) -> dict[str, float | None]:
    """All measures of an image, uint8 [H, W, 3], and of the bytes of its file."""
    small_HWC = reduced(rgb_HWC)
    measures: dict[str, float | None] = {name: measure(small_HWC) for name, measure in IMAGE_MEASURES.items()}
    return measures | {"jpeg_quality": jpeg_quality(data)}


def words(caption: str) -> float:
    """Words, divided by white space."""
    return float(len(caption.split()))


def characters(caption: str) -> float:
    """Characters, white space included."""
    return float(len(caption))


def letters(caption: str) -> float:
    """Share of the characters other than white space that are letters, 0 to 1."""
    visible = [character for character in caption if not character.isspace()]
    return sum(map(str.isalpha, visible)) / len(visible) if visible else 0.0


def repeated_words(caption: str) -> float:
    """Share of the words that the caption has before, 0 to 1, in any case."""
    counts = Counter(caption.lower().split())
    return 1 - len(counts) / counts.total() if counts else 0.0


CAPTION_MEASURES: Mapping[str, Callable[[str], float]] = {
    "words": words,
    "characters": characters,
    "letters": letters,
    "repeated_words": repeated_words,
}


def measure_caption(caption: str) -> dict[str, float | None]:
    """All measures of a caption."""
    return {name: measure(caption) for name, measure in CAPTION_MEASURES.items()}


NAMES = (*IMAGE_MEASURES, "jpeg_quality", *CAPTION_MEASURES)
"""All measures, in the order of their columns."""
