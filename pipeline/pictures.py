"""Is this a picture that training can use? Bytes in, upright RGB or a reason out."""

from __future__ import annotations

import dataclasses

import numpy as np

from models import pixels
from pipeline.records import Reason


@dataclasses.dataclass(frozen=True)
class PictureConfig:
    """What a picture must be like. The paper gives the ratio only; the rest is our own choice."""

    min_ratio: float = 0.5  # width / height, both ends allowed (section 2.3)
    max_ratio: float = 2.0
    min_side: int = 64  # px, before enlarging to the tokenizer's size
    max_pixels: int = pixels.MAX_PIXELS


class PictureRejected(Exception):
    """Carries the reason and a detail for people."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(f"{reason.value}: {detail}")
        self.reason, self.detail = reason, detail


def size_fault(width: int, height: int, config: PictureConfig) -> tuple[Reason, str] | None:
    """Why a picture of this upright size can't be used, or None."""
    if width < 1 or height < 1:
        return Reason.CORRUPT_IMAGE, f"{width} x {height}"
    # Compared as products: 1/2 and 2 themselves must not be lost to rounding.
    if width < config.min_ratio * height or width > config.max_ratio * height:
        return Reason.ASPECT_RATIO, f"{width} x {height}"
    if min(width, height) < config.min_side:
        return Reason.TOO_SMALL, f"{width} x {height}"
    return None


def check_beginning(data: bytes, config: PictureConfig) -> None:
    """Raises PictureRejected if the first bytes of a file already settle that it is of no use.

    Says nothing about bytes that no decoder knows yet: the header may need more of them.
    """
    try:
        image = pixels.open_picture(data, config.max_pixels)
        width, height = pixels.upright_size(image)
    except pixels.TooManyPixels as error:
        raise PictureRejected(Reason.TOO_MANY_PIXELS, str(error)) from error
    except (pixels.PictureError, OSError, ValueError, SyntaxError, EOFError):  # an incomplete header fails in many ways
        return
    if fault := size_fault(width, height, config):
        raise PictureRejected(*fault)


def decode(data: bytes, config: PictureConfig) -> np.ndarray:
    """Upright RGB, uint8 [height, width, 3]. Raises PictureRejected."""
    try:
        image = pixels.open_picture(data, config.max_pixels)
        rgb_HWC = pixels.to_rgb(image)
    except pixels.TooManyPixels as error:
        raise PictureRejected(Reason.TOO_MANY_PIXELS, str(error)) from error
    except pixels.NotAPicture as error:
        raise PictureRejected(Reason.NOT_AN_IMAGE, str(error)) from error
    except pixels.PictureError as error:
        raise PictureRejected(Reason.CORRUPT_IMAGE, str(error)) from error
    if fault := size_fault(rgb_HWC.shape[1], rgb_HWC.shape[0], config):
        raise PictureRejected(*fault)
    return rgb_HWC


def suffix(data: bytes) -> str:
    """The usual file ending of the bytes' format, without the dot."""
    form = (pixels.open_picture(data).format or "").lower()
    return {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}.get(form, form)
