"""Averaging by area, as OpenCV's INTER_AREA does it, in less time where the ratio is below two: what JPEG's own scales
leave (`benchmarks.handwritten`).

OpenCV goes through an image pixel by pixel where the ratio is no whole number. The same average is a sparse matrix
for each direction, whose rows hold the shares of the few pixels that a new one covers: products of whole rows, which
vector units do several numbers at a time. Height comes first: what has to be turned then is smaller. The image is
averaged in strips, whose numbers stay in the processor's cache from one step to the next.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import cv2
import numpy as np
from scipy.sparse import csr_matrix

MAX_PIXELS = 1 << 20  # of what is shrunk; OpenCV does larger ones
STRIP_ROWS = 48  # of the new image (measured: 16 to 64 take about the same time, all at once half as much again)


def area_resize(rgb_HWC: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [H, W, 3] to uint8 [height, width, 3], neither side longer than before."""
    H, W, _ = rgb_HWC.shape
    if H * W > MAX_PIXELS or (W % width == 0 and H % height == 0):  # whole numbers are quick there, too
        return cv2.resize(rgb_HWC, (width, height), interpolation=cv2.INTER_AREA)
    rows, resized = rgb_HWC.reshape(H, W * 3), np.empty((height, width * 3), np.uint8)
    across = _across(W, width)
    for strip in _strips(H, height):
        low = strip.shares @ rows[strip.first : strip.last].astype(np.float32)  # [rows of the strip, W * 3]
        small = across @ cv2.transpose(low)  # [width * 3, rows of the strip]
        cv2.transpose(cv2.convertScaleAbs(small), resized[strip.top : strip.bottom])  # the inner one rounds
    return resized.reshape(height, width, 3)


class _Strip(NamedTuple):
    """Rows top to bottom of the new image, which are averages of the rows first to last of the old one."""

    top: int
    bottom: int
    first: int
    last: int
    shares: csr_matrix  # [bottom - top, last - first]


@functools.lru_cache(4096)
def _strips(before: int, after: int) -> list[_Strip]:
    shares, pixels, starts = _averages(before, after, 1)
    strips = []
    for top in range(0, after, STRIP_ROWS):
        bottom = min(after, top + STRIP_ROWS)
        part = slice(starts[top], starts[bottom])
        first, last = int(pixels[part][0]), int(pixels[part][-1]) + 1
        cut = shares[part], pixels[part] - first, starts[top : bottom + 1] - starts[top]
        matrix = csr_matrix(cut, (bottom - top, last - first))
        strips.append(_Strip(top=top, bottom=bottom, first=first, last=last, shares=matrix))
    return strips


@functools.lru_cache(4096)
def _across(before: int, after: int) -> csr_matrix:
    """[after * 3, before * 3]: the averages of a row whose pixels have three colours each."""
    return csr_matrix(_averages(before, after, 3), (after * 3, before * 3))


def _averages(before: int, after: int, colours: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much each old number adds to each new one, as CSR has it: shares, which sum to 1 in each row, columns, starts
    of the rows. A pixel has `colours` numbers, which lie side by side."""
    ends = np.arange(after + 1) * (before / after)
    first = np.floor(ends[:-1, None])
    pixels = first + np.arange(math.ceil(before / after) + 1)  # one row for each new pixel: those that it may touch
    covered = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    columns = (pixels * colours).repeat(colours, axis=0) + np.tile(np.arange(colours), after)[:, None]
    covered = covered.repeat(colours, axis=0)
    touched = covered >= 1e-6  # less is what rounding leaves
    starts = np.concatenate([[0], np.cumsum(touched.sum(axis=1))])
    shares = (covered[touched] * (after / before)).astype(np.float32)
    return shares, columns[touched].astype(np.int32), starts.astype(np.int32)
