"""Finds faces with OpenCV's YuNet, from a file of the user's, and makes them unrecognisable.

Faces are searched with the image's longer side at 640 px or less, the size that YuNet was trained for. Those of fewer
than about 10 px there are not found; an image tokenizer sees 4 px of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from models.errors import UserError

MAX_SIDE = 640  # px
MIN_CONFIDENCE = 0.6  # below OpenCV's 0.9: to miss a face costs more than to blur a ball
MAX_OVERLAP = 0.3  # of two faces, as in OpenCV's sample
MAX_FACES = 5000
PADDING = 0.25  # of the box's sides, on each side: YuNet's boxes leave out hair, ears and chin
CELLS = 4  # colours across and down that are left of a face


class Box(NamedTuple):
    """A part of an image in px, its ends excluded."""

    left: int
    top: int
    right: int
    bottom: int


class FaceDetector:
    """A loaded model. Threads may share it; images are searched one at a time."""

    def __init__(self, path: str | Path):
        """Raises UserError for a file that is missing or holds no such model."""
        fix = "give the ONNX file of YuNet, such as face_detection_yunet_2023mar.onnx"
        if not Path(path).is_file():
            raise UserError(f"--face-model {path}: there is no such file; {fix}")
        self._lock = threading.Lock()
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the line below says it
        try:
            self._model = cv2.FaceDetectorYN.create(
                str(path), "", (MAX_SIDE, MAX_SIDE), MIN_CONFIDENCE, MAX_OVERLAP, MAX_FACES
            )
            self.find(np.zeros((64, 64, 3), np.uint8))
        except cv2.error:
            raise UserError(f"--face-model {path}: is damaged or no such model; {fix}") from None
        finally:
            cv2.utils.logging.setLogLevel(level)

    def find(self, rgb_HWC: np.ndarray) -> list[Box]:
        """The faces of an image, uint8 [H, W, 3], with padding around them."""
        height, width = rgb_HWC.shape[:2]
        scale = min(1.0, MAX_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(rgb_HWC, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb_HWC
        with self._lock:
            self._model.setInputSize(size)
            _, faces_N15 = self._model.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        if faces_N15 is None:
            return []
        stretch = np.array([width / size[0], height / size[1]] * 2)
        return [_padded(face[:4] * stretch, width, height) for face in faces_N15]


def _padded(face: np.ndarray, width: int, height: int) -> Box:
    """The box of a face [left, top, width, height], padded, within the image."""
    left, top, wide, high = face.tolist()
    across, down = wide * PADDING, high * PADDING
    return Box(
        min(width - 1, max(0, int(left - across))),
        min(height - 1, max(0, int(top - down))),
        min(width, max(1, int(np.ceil(left + wide + across)))),
        min(height, max(1, int(np.ceil(top + high + down)))),
    )


def blurred(rgb_HWC: np.ndarray, boxes: Iterable[Box]) -> np.ndarray:
    """A copy of an image of whose boxes CELLS x CELLS mean colours are left: nothing brings a face back from these."""
    rgb_HWC = rgb_HWC.copy()
    for box in boxes:
        part = rgb_HWC[box.top : box.bottom, box.left : box.right]
        cells = cv2.resize(part, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
        part[:] = cv2.resize(cells, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return rgb_HWC
