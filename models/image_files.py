"""Encodes RGB arrays as PNG and JPEG, and lays several images out in a grid."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def png(image_HWC: np.ndarray, texts: dict[str, str]) -> bytes:
    """Encodes uint8 [H, W, 3] as PNG bytes, with `texts` as iTXt chunks."""
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def image_grid(images_BHWC: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Lays out uint8 [B, H, W, 3] in a grid [rows * H, columns * W, 3], nearly square by default; unused cells are
    white."""
    count, height, width, _ = images_BHWC.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.full((rows * columns, height, width, 3), 255, np.uint8)
    grid[:count] = images_BHWC
    return grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def jpeg(image_HWC: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, 3] as JPEG bytes of quality 90."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
