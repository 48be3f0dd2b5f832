"""Checks and decodes an image: bytes in, upright RGB or a reason out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import simplejpeg  # libjpeg-turbo: the pixels that Pillow makes, sooner, and at reduced scales
from PIL import ExifTags, Image

from models import pixels
from pipeline.images import limited_decoder
from pipeline.records import Reason

EXIF_CHARACTERS = 1_000  # of one value
MAX_SCANS = 100  # of a JPEG; encoders make about ten
_SCAN = b"\xff\xda"
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})  # markers of a JPEG, and 0xFF itself in a scan's data
SCALES = (1, 2, 4, 8)  # of JPEG decoding: the others that libjpeg has are slower, and lose more


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """Bounds of usable images. The paper gives the ratio only; the others are the project's own."""

    min_ratio: float = 0.5  # width / height, both ends allowed (section 2.3)
    max_ratio: float = 2.0
    min_side: int = 64  # px, before enlarging to the tokenizer's size
    max_pixels: int = 80_000_000  # a PNG of this size takes a worker to 970 MB


ANY_IMAGE = ImageConfig(min_ratio=0, max_ratio=math.inf, min_side=1)


class DecodedImage(NamedTuple):
    """An image, perhaps at a reduced scale."""

    rgb_HWC: np.ndarray  # upright, uint8
    width: int  # px, upright, of the whole image
    height: int
    exif: Image.Exif | None  # None if it does not parse


class ImageRejected(Exception):
    """Carries the reason and a detail for people."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(f"{reason.value}: {detail}")
        self.reason, self.detail = reason, detail


def check_dimensions(width: int, height: int, config: ImageConfig) -> tuple[Reason, str] | None:
    """Why an image of this upright size can't be used, or None."""
    if width < 1 or height < 1:
        return Reason.CORRUPT_IMAGE, f"{width}x{height}"
    # Compared as products: 1/2 and 2 themselves must not be lost to rounding.
    if width < config.min_ratio * height or width > config.max_ratio * height:
        bounds = f"{config.min_ratio:g} to {config.max_ratio:g}"
        return Reason.ASPECT_RATIO, f"{width}x{height}, ratio {width / height:.4g}, allowed {bounds}"
    if min(width, height) < config.min_side:
        return Reason.TOO_SMALL, f"{width}x{height}, min side {config.min_side}"
    return None


def check_header(data: bytes, config: ImageConfig) -> tuple[int, int] | None:
    """The image's sides in px, if the first bytes of a file hold them already; None if the header needs more bytes.

    Raises ImageRejected if they show that the file is unusable.
    """
    try:
        return checked_size(data, config)
    except ImageRejected as rejection:
        if rejection.reason is Reason.CORRUPT_IMAGE:  # so far: an incomplete header is one
            return None
        raise


def checked_size(image: bytes | BinaryIO, config: ImageConfig) -> tuple[int, int]:
    """The sides in px, as stored. Raises ImageRejected if the header shows that an image is unusable."""
    return _open(image, config).size


def decode(data: bytes, config: ImageConfig) -> np.ndarray:
    """Upright RGB, uint8 [height, width, 3]. Raises ImageRejected."""
    return decode_scaled(data, config, None).rgb_HWC


def decode_scaled(data: bytes, config: ImageConfig, side: int | None) -> DecodedImage:
    """Upright RGB for a caller that needs the shorter side at `side` px; None: at full scale.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its scale if that leaves `side` px. The whole file is read, and damage is
    found, at either scale. Raises ImageRejected.
    """
    image = _open(data, config)
    width, height = image.size
    with _as_rejects():
        rgb_HWC = _decode_jpeg(data, image, side)
        if rgb_HWC is None:
            if image.format in limited_decoder.FORMATS:
                rgb_HWC, exif = limited_decoder.to_rgb(data, width, height), pixels.exif_of(image)
            else:
                rgb_HWC, exif = pixels.to_rgb_with_exif(image)
            height, width = rgb_HWC.shape[:2]
        else:
            orientation, exif = pixels.orientation_of(image), pixels.exif_of(image)
            rgb_HWC = pixels.apply_orientation(rgb_HWC, orientation)
            width, height = (height, width) if orientation >= 5 else (width, height)
    if rejection := check_dimensions(width, height, config):
        raise ImageRejected(*rejection)
    return DecodedImage(rgb_HWC, width, height, exif)


def _decode_jpeg(data: bytes, image: Image.Image, side: int | None) -> np.ndarray | None:
    """A JPEG in grey or colour, as it lies; None for all else, and where there is anything to find fault with: that is
    for Pillow to judge, which lets pass what libjpeg only warns of."""
    if image.format not in ("JPEG", "MPO"):
        return None
    _check_scans(data)
    if image.mode not in ("L", "RGB"):
        return None
    width, height = image.size
    scale = 1 if side is None else max(scale for scale in SCALES if scale == 1 or min(width, height) >= scale * side)
    try:
        return simplejpeg.decode_jpeg(data, min_width=-(-width // scale), min_height=-(-height // scale))
    except ValueError:
        return None


def _check_scans(data: bytes) -> None:
    """Raises ImageError for more scans than any encoder makes: each may be empty, and takes the time of the image."""
    if data.count(_SCAN) > MAX_SCANS and (scans := _count_scans(data)) > MAX_SCANS:
        raise pixels.ImageError(f"{scans} scans, at most {MAX_SCANS} are decoded")


def _count_scans(data: bytes) -> int:
    """The number of scans, without what looks like one in metadata."""
    scans, at = 0, 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            scans += marker == _SCAN[1]
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return scans


def _open(source: bytes | BinaryIO, config: ImageConfig) -> Image.Image:
    """Parses the header only. Raises ImageRejected if it shows that the image is unusable."""
    with _as_rejects():
        image = pixels.open_image(source, config.max_pixels)
    width, height = image.size
    # EXIF data, which may turn the source, can come after the pixels: rejected is what is at fault either way.
    if (rejection := check_dimensions(width, height, config)) and check_dimensions(height, width, config):
        raise ImageRejected(*rejection)
    return image


@contextlib.contextmanager
def _as_rejects() -> Iterator[None]:
    try:
        yield
    except pixels.TooManyPixels as error:
        raise ImageRejected(Reason.TOO_MANY_PIXELS, str(error)) from error
    except pixels.NotAnImage as error:
        raise ImageRejected(Reason.NOT_AN_IMAGE, str(error)) from error
    except pixels.ImageError as error:
        raise ImageRejected(Reason.CORRUPT_IMAGE, str(error)) from error


def suffix(data: bytes) -> str:
    """The usual file ending of an image's format, without the dot."""
    return pixels.image_format(data)[0]


def exif_text(exif: Image.Exif | None) -> str:
    """JSON of an image's EXIF data, values as text by the tags' names; "{}" if there are none, or none that parse."""
    if exif is None:
        return "{}"
    try:
        named = {
            ExifTags.TAGS[tag]: str(value).strip()[:EXIF_CHARACTERS]
            for tag, value in exif.items()
            if tag in ExifTags.TAGS and not isinstance(value, bytes)
        }
    except Exception:  # hostile values fail in every way, too
        return "{}"
    return json.dumps(named, ensure_ascii=False, sort_keys=True)
