"""An image that was downloaded completely and decodes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from pipeline.records import Pair

Size = tuple[int, int]  # px, width and height as stored


class FetchedImage(NamedTuple):
    """An image that was downloaded completely and decodes."""

    pair: Pair
    data: bytes  # as served
    rgb_HWC: np.ndarray  # upright, uint8; may be at a reduced scale
    sha256: str  # of data
    full_size: Size | None = None  # px, width and height, if rgb_HWC is reduced
    exif: Image.Exif | None = None

    @property
    def size(self) -> Size:
        """Width and height in px of the full image, upright."""
        return self.full_size or (self.rgb_HWC.shape[1], self.rgb_HWC.shape[0])

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return len(self.data) + self.rgb_HWC.nbytes
