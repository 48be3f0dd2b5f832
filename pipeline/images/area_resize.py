"""Averaging by area, as OpenCV's INTER_AREA does it, in half its time where the ratio is below two: what JPEG's own
scales leave (`benchmarks.handwritten`).

OpenCV goes through an image pixel by pixel where the ratio is no whole number. The same average is a sparse matrix
for each direction, whose rows hold the shares of the few pixels that a new one covers: products of whole rows, which
vector units do several numbers at a time. Height comes first: what has to be turned then is smaller.
"""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
from scipy.sparse import csr_matrix

MAX_PIXELS = 1 << 20  # of what is shrunk: it is held as float32, so that larger ones would cost much memory


def area_resize(rgb_HWC: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [H, W, 3] to uint8 [height, width, 3], neither side longer than before."""
    H, W, _ = rgb_HWC.shape
    if H * W > MAX_PIXELS or (W % width == 0 and H % height == 0):  # whole numbers are quick there, too
        return cv2.resize(rgb_HWC, (width, height), interpolation=cv2.INTER_AREA)
    low_HWC = (_averaging_matrix(H, height) @ rgb_HWC.reshape(H, W * 3).astype(np.float32)).reshape(height, W, 3)
    small_WHC = _averaging_matrix(W, width) @ cv2.transpose(low_HWC).reshape(W, height * 3)
    return cv2.transpose(cv2.convertScaleAbs(small_WHC).reshape(width, height, 3))  # the former rounds


@functools.lru_cache(4096)
def _averaging_matrix(before: int, after: int) -> csr_matrix:
    """[after, before]: how much each old pixel adds to each new one; rows sum to 1."""
    ends = np.arange(after + 1) * (before / after)
    first = np.floor(ends[:-1, None])
    pixels = first + np.arange(math.ceil(before / after) + 1)  # one row for each new pixel: those that it may touch
    covered = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    touched = covered >= 1e-6  # less is what rounding leaves
    starts = np.concatenate([[0], np.cumsum(touched.sum(axis=1))])
    shares = (covered[touched] * (after / before)).astype(np.float32)
    return csr_matrix((shares, pixels[touched].astype(np.int32), starts.astype(np.int32)), (after, before))
