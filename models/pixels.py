"""Pixels, in one place: bytes to RGB, the paper's crops, resizing, and phi with its inverse.

Precomputing codes, training and sampling share these functions, so that they treat an image alike.
Section and listing numbers are those of "Zero-Shot Text-to-Image Generation" (arXiv 2102.12092).
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import cv2  # area interpolation with exact fractional weights, as TensorFlow's AREA; Pillow's BOX rounds them
import numpy as np
from PIL import Image, UnidentifiedImageError

from models.hashing import stable_hash

if TYPE_CHECKING:  # fetching needs pixels, not torch, which takes 200 MB of every worker
    import torch

LOGIT_LAPLACE_EPS = 0.1  # appendix A.3: keeps phi(x) off 0 and 1, where the logit is infinite
IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})
MAX_PIXELS = 100_000_000  # an image of this size takes 300 MB as RGB, and 700 MB while it is decoded

Integers = Callable[[int, int], int]
"""`integers(low, high)` returns a random integer in [low, high)."""


class ImageError(ValueError):
    """The bytes are not a usable image; the message gives the reason."""


class NotAnImage(ImageError):
    """The first bytes match none of the supported formats."""


class TooManyPixels(ImageError):
    """The header declares more pixels than allowed (a decompression bomb, or a map sheet)."""


class CropBox(NamedTuple):
    """How one training view is cropped from an image: square, then resize, then window.

    The square at (left, top) with the given side, in pixels of the upright original, is resized to
    `resized` x `resized`; the view is the window at (x, y) of the result.
    """

    left: int
    top: int
    side: int
    resized: int
    x: int
    y: int


def seeded_randint(seed: str) -> Integers:
    """Returns a generator of integers that follow from `seed` alone: the same on every machine and library version."""
    counter = 0

    def integers(low: int, high: int) -> int:
        nonlocal counter
        value = stable_hash(f"{seed}/{counter}")
        counter += 1
        return low + value % (high - low)

    return integers


# --- bytes to pixels -------------------------------------------------------------------------------------------------

# Suffix, Pillow's name, first bytes. No other format is tried: Pillow reads dozens, one of which starts Ghostscript.
_FORMATS = tuple(
    (suffix, name, re.compile(start, re.DOTALL))
    for suffix, name, start in (
        ("jpg", "JPEG", rb"\xff\xd8\xff"),
        ("png", "PNG", rb"\x89PNG\r\n\x1a\n"),
        ("webp", "WEBP", rb"RIFF....WEBP"),
        ("gif", "GIF", rb"GIF8[79]a"),
        ("tif", "TIFF", rb"II[*+]\0|MM\0[*+]"),
        ("avif", "AVIF", rb"....ftyp(?:avif|avis|mif1|msf1)"),
        ("bmp", "BMP", rb"BM"),
    )
)
_STRIP_PIXELS = 1 << 20  # converted at a time: converting a large image at once takes several times its memory
_HEADER_BYTES = 64 << 20  # more than any header takes
_ORIENTATION = 0x0112  # EXIF tag


def image_format(header: bytes) -> tuple[str, str]:
    """Recognises a format by the first 12 bytes: (file suffix, Pillow's name). Raises NotAnImage."""
    for suffix, name, start in _FORMATS:
        if start.match(header):
            return suffix, name
    raise NotAnImage(f"begins with {bytes(header[:12])!r}")


def open_image(data: bytes | BinaryIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens an image by parsing its header only. Raises NotAnImage, TooManyPixels, or ImageError if it is damaged."""
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    file.seek(0)
    _, name = image_format(file.read(12))
    if name not in Image.OPEN:
        Image.init()
        if name not in Image.OPEN:
            raise NotAnImage(f"{name}: this build of Pillow does not read it")
    file.seek(0)
    try:
        with _quiet_pillow():
            image = Image.open(file, formats=[name])
    except Image.DecompressionBombError as error:
        raise TooManyPixels(_message(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: damaged header") from error  # Pillow's message holds a memory address
    except MemoryError as error:
        bytearray(_HEADER_BYTES)  # fails as well if it is this machine that has no more
        raise ImageError(f"{name}: its header asks for too much memory") from error
    except Exception as error:  # decoders raise anything on hostile bytes, which must not end the job
        raise ImageError(f"{name}: {_message(error)}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixels(f"{width} x {height} is more than {max_pixels} pixels")
    return image


def to_rgb(image: Image.Image) -> np.ndarray:
    """Decodes to upright RGB, uint8 [height, width, 3]: EXIF applied, transparency over white, first frame only.

    Raises ImageError for data that ends early or does not decode.
    """
    return to_rgb_with_exif(image)[0]


def to_rgb_with_exif(image: Image.Image) -> tuple[np.ndarray, Image.Exif | None]:
    """As `to_rgb`, with the same errors; and the EXIF data, which may come after the pixels and are gone once the image
    is closed."""
    try:
        with _quiet_pillow():
            image.load()
            orientation, exif = orientation_of(image), exif_of(image)
        rgb_HWC = _deep_grey_to_rgb(image) if image.mode[0] in "IF" else _in_strips(image)
    except MemoryError:  # of this machine, perhaps: the caller knows
        raise
    except Exception as error:  # as above
        raise ImageError(_message(error)) from error
    image.close()
    return apply_orientation(rgb_HWC, orientation), exif


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silences Pillow's warnings about bombs, for which TooManyPixels is raised, and about odd metadata."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _message(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _in_strips(image: Image.Image) -> np.ndarray:
    width, height = image.size
    rgb_HWC = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = image if rows >= height else image.crop((0, top, width, min(top + rows, height)))
        if strip.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in strip.info:
            rgba = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        rgb_HWC[top : top + rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return rgb_HWC


def _deep_grey_to_rgb(image: Image.Image) -> np.ndarray:
    """Scales 16- and 32-bit grey to 8 bits; Pillow's convert() would clip all values above 255 to white.

    White is 65535 in 16 bits; for 32-bit integers and floats it is inferred from the brightest pixel.
    """
    grey = np.asarray(image)
    if image.mode.startswith("I;16"):
        table = np.rint(np.arange(65536) / 257).astype(np.uint8)
        return np.repeat(table[grey][:, :, None], 3, axis=2)
    brightest = max((float(np.nan_to_num(strip).max()) for strip in _strips(grey)), default=0.0)
    white = 65535 if brightest > 255 else 255 if brightest > 1 or image.mode == "I" else 1
    rgb_HWC = np.empty((*grey.shape, 3), np.uint8)
    for target, strip in zip(_strips(rgb_HWC), _strips(grey), strict=True):
        scaled = np.nan_to_num(strip.astype(np.float32)) * np.float32(255 / white)
        target[:] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)[:, :, None]
    return rgb_HWC


def _strips(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Views of some rows each: converting a large image at once takes several times its memory."""
    step = max(1, _STRIP_PIXELS // max(1, rows.shape[1]))
    return (rows[top : top + step] for top in range(0, len(rows), step))


def exif_of(image: Image.Image) -> Image.Exif | None:
    """The EXIF data, which Pillow parses once for an image; None if they don't parse."""
    try:
        return image.getexif()
    except Exception:  # hostile metadata fail in every way, and the image is usable without them
        return None


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if the data does not parse, as viewers treat such images."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except (SyntaxError, OSError, ValueError, LookupError, TypeError, struct.error):
        return 1
    return next((valid for valid in range(1, 9) if valid == orientation), 1)


def apply_orientation(rgb_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors an image, uint8 [H, W, 3], with an EXIF orientation of 1 to 8 upright."""
    if orientation in (5, 6, 7, 8):
        rgb_HWC = rgb_HWC.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        rgb_HWC = rgb_HWC[::-1]
    if orientation in (2, 3, 6, 7):
        rgb_HWC = rgb_HWC[:, ::-1]
    return np.ascontiguousarray(rgb_HWC)


def decode_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Bytes of a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file to upright RGB, uint8 [height, width, 3].

    Raises ImageError: NotAnImage, TooManyPixels, or the base class for damaged data.
    """
    return to_rgb(open_image(data, max_pixels))


# --- the paper's crops -----------------------------------------------------------------------------------------------


def resize(rgb_HWC: np.ndarray, side: int) -> np.ndarray:
    """Resizes a square uint8 [s, s, 3] to [side, side, 3]: area averaging down (listings 1 and 2), bicubic up.

    The paper does not mention images smaller than 256 px; pairmill enlarges them.
    """
    if rgb_HWC.shape[0] == side:
        return rgb_HWC
    method = cv2.INTER_AREA if rgb_HWC.shape[0] > side else cv2.INTER_CUBIC
    return cv2.resize(rgb_HWC, (side, side), interpolation=method)


def apply_crop(rgb_HWC: np.ndarray, box: CropBox, size: int) -> np.ndarray:
    """Crops the view of `box`: uint8 [size, size, 3]."""
    square = rgb_HWC[box.top : box.top + box.side, box.left : box.left + box.side]
    return resize(square, box.resized)[box.y : box.y + size, box.x : box.x + size]


def transformer_crop(width: int, height: int, size: int, integers: Integers) -> CropBox:
    """The crop of Listing 2, from which the transformer's codes are computed; no flip.

    The square lies in the central quarter of the slack, is resized to a side in [size, min(side, 9/8 size)], and the
    window lies anywhere in it.
    """
    side = min(width, height)
    left, top = (_central_offset(slack, integers) for slack in (width - side, height - side))
    resized = integers(size, max(size, min(side, round(9 / 8 * size))) + 1)
    x, y = (integers(0, resized - size + 1) for _ in range(2))
    return CropBox(left=left, top=top, side=side, resized=resized, x=x, y=y)


def centre_crop(width: int, height: int, size: int) -> CropBox:
    """The centre square, resized to `size`: Listing 2 without randomness."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return CropBox(left=left, top=top, side=side, resized=size, x=0, y=0)


def _central_offset(slack: int, integers: Integers) -> int:
    low = 3 * slack // 8
    return integers(low, max(low + 1, 5 * slack // 8))


def dvae_crop(width: int, height: int, size: int, integers: Integers) -> tuple[CropBox, bool]:
    """The crop and flip of Listing 1, with which the dVAE is trained.

    The square lies anywhere, is resized to a side in [min(s, 9/8 size), min(s, 12/8 size)] but at least `size`, and the
    window lies anywhere in it. Half of the views are mirrored.
    """
    side = min(width, height)
    left, top = integers(0, width - side + 1), integers(0, height - side + 1)
    low, high = (max(size, min(side, round(ratio * size))) for ratio in (9 / 8, 12 / 8))
    resized = integers(low, high + 1)
    x, y = (integers(0, resized - size + 1) for _ in range(2))
    return CropBox(left=left, top=top, side=side, resized=resized, x=x, y=y), bool(integers(0, 2))


# --- pixels to the model's numbers -----------------------------------------------------------------------------------


def to_tensor(views_BHWC: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W] in 0..1, in channels-last layout, the fastest for convolutions."""
    import torch

    x_BCHW = torch.from_numpy(views_BHWC).to(device).permute(0, 3, 1, 2)  # transferred as bytes: a quarter of the size
    return x_BCHW.to(torch.float32, memory_format=torch.channels_last) / 255


def to_uint8(x_BCHW: torch.Tensor) -> np.ndarray:
    """float [B, 3, H, W] in 0..1, on the CPU, to uint8 [B, H, W, 3]."""
    return (x_BCHW.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def phi(x: torch.Tensor) -> torch.Tensor:
    """Maps 0..1 to [eps, 1 - eps] (appendix A.3), number by number, of any shape."""
    return (1 - 2 * LOGIT_LAPLACE_EPS) * x + LOGIT_LAPLACE_EPS


def phi_inverse(y: torch.Tensor) -> torch.Tensor:
    """Maps back to 0..1, number by number; values outside the range of phi are clamped to black or white."""
    return ((y - LOGIT_LAPLACE_EPS) / (1 - 2 * LOGIT_LAPLACE_EPS)).clamp(0, 1)
