"""Is this a picture that training can use? Bytes in, upright RGB or a reason out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

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


def check_beginning(data: bytes, config: PictureConfig) -> tuple[int, int] | None:
    """The picture's sides in px, if the first bytes of a file hold them already; None if the header needs more bytes.

    Raises PictureRejected if they settle that the file is of no use.
    """
    try:
        return usable_size(data, config)
    except PictureRejected as fault:
        if fault.reason is Reason.CORRUPT_IMAGE:  # so far: an incomplete header is one
            return None
        raise


def usable_size(picture: bytes | BinaryIO, config: PictureConfig) -> tuple[int, int]:
    """The sides in px, as stored. Raises PictureRejected if the header settles that a picture is of no use."""
    return _open(picture, config).size


def decode(data: bytes, config: PictureConfig) -> np.ndarray:
    """Upright RGB, uint8 [height, width, 3]. Raises PictureRejected."""
    image = _open(data, config)
    with _as_rejects():
        rgb_HWC = pixels.to_rgb(image)
    if fault := size_fault(rgb_HWC.shape[1], rgb_HWC.shape[0], config):
        raise PictureRejected(*fault)
    return rgb_HWC


def _open(picture: bytes | BinaryIO, config: PictureConfig) -> Image.Image:
    """Parses the header; nothing dear is done for a picture that it shows to be of no use."""
    with _as_rejects():
        image = pixels.open_picture(picture, config.max_pixels)
    width, height = image.size
    # EXIF data, which may turn the picture, can come after the pixels: rejected is what is at fault either way.
    if (fault := size_fault(width, height, config)) and size_fault(height, width, config):
        raise PictureRejected(*fault)
    return image


@contextlib.contextmanager
def _as_rejects() -> Iterator[None]:
    try:
        yield
    except pixels.TooManyPixels as error:
        raise PictureRejected(Reason.TOO_MANY_PIXELS, str(error)) from error
    except pixels.NotAPicture as error:
        raise PictureRejected(Reason.NOT_AN_IMAGE, str(error)) from error
    except pixels.PictureError as error:
        raise PictureRejected(Reason.CORRUPT_IMAGE, str(error)) from error


def suffix(data: bytes) -> str:
    """The usual file ending of a picture's format, without the dot."""
    return pixels.picture_format(data)[0]
