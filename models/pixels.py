"""Pixels, in one place: bytes to RGB, the paper's crops, resizing, and phi with its inverse.

Precomputing codes, training and drawing all go through here, so that a picture means the same everywhere.
Section and listing numbers are those of "Zero-Shot Text-to-Image Generation" (arXiv 2102.12092).
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from typing import NamedTuple

import cv2  # area interpolation with exact fractional weights, as TensorFlow's AREA; Pillow's BOX has none
import numpy as np
import torch
from PIL import Image, ImageOps

LOGIT_LAPLACE_EPS = 0.1  # appendix A.3: keeps phi(x) off 0 and 1, where the logit is infinite
MAX_PIXELS = 100_000_000  # a 100-megapixel picture takes 300 MB as RGB

Integers = Callable[[int, int], int]
"""`integers(low, high)` draws one integer in [low, high)."""


class PictureError(ValueError):
    """The bytes are not a picture that can be used; the message says why."""


class NotAPicture(PictureError):
    """No decoder knows the bytes."""


class TooManyPixels(PictureError):
    """The header announces more pixels than allowed (a decompression bomb, or a map sheet)."""


class CropBox(NamedTuple):
    """How one training view was cut out of a picture: square, then resize, then window.

    The square at (left, top) with the given side, in the upright original's pixels, is resized to
    `resized` x `resized`; the view is the window at (x, y) of that.
    """

    left: int
    top: int
    side: int
    resized: int
    x: int
    y: int


def seeded_integers(seed: str) -> Integers:
    """Integers from SHA-256 of `seed` and a counter: the same on every machine and in every library version."""
    counter = 0

    def integers(low: int, high: int) -> int:
        nonlocal counter
        digest = hashlib.sha256(f"{seed}/{counter}".encode()).digest()
        counter += 1
        return low + int.from_bytes(digest[:8], "big") % (high - low)

    return integers


# --- bytes to pixels -------------------------------------------------------------------------------------------------


def open_picture(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Parses the header only. Raises NotAPicture, TooManyPixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours and is an error
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise TooManyPixels(str(error)) from error
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError) as error:
        raise NotAPicture(str(error).splitlines()[0]) from error
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixels(f"{width} x {height} is more than {max_pixels} pixels")
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) after the EXIF orientation; reads only the header."""
    width, height = image.size
    rotated = image.getexif().get(0x0112) in (5, 6, 7, 8)
    return (height, width) if rotated else (width, height)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Decodes to upright RGB, uint8 [height, width, 3]: EXIF applied, transparency laid on white, first frame only.

    Raises PictureError for data that ends early or does not decode.
    """
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":
            return _deep_grey_to_rgb(image)
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            white = Image.new("RGBA", rgba.size, "white")
            image = Image.alpha_composite(white, rgba)
        return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, OverflowError, MemoryError) as error:
        # What Pillow's decoders raise on truncated or inconsistent data.
        raise PictureError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _deep_grey_to_rgb(image: Image.Image) -> np.ndarray:
    """16-bit grey to 8 bits by dividing: Pillow's own convert() clips everything above 255 to white."""
    grey = np.asarray(image).astype(np.float64)
    scale = 65535.0 if grey.max(initial=0) > 255 else 255.0
    grey = np.clip(np.rint(grey / scale * 255), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def decode_rgb(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Bytes of a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file to upright RGB, uint8 [height, width, 3].

    Raises PictureError (NotAPicture, TooManyPixels, or itself for damaged data).
    """
    return to_rgb(open_picture(data, max_pixels))


# --- the paper's crops -----------------------------------------------------------------------------------------------


def resize(rgb_HWC: np.ndarray, side: int) -> np.ndarray:
    """Square uint8 [s, s, 3] to [side, side, 3]: area averaging down (listings 1 and 2), bicubic up.

    The paper does not say what happens to pictures under 256 px; enlarging is our own rule.
    """
    if rgb_HWC.shape[0] == side:
        return rgb_HWC
    method = cv2.INTER_AREA if rgb_HWC.shape[0] > side else cv2.INTER_CUBIC
    return cv2.resize(rgb_HWC, (side, side), interpolation=method)


def apply_crop(rgb_HWC: np.ndarray, box: CropBox, size: int) -> np.ndarray:
    """Cuts the view that `box` names: uint8 [size, size, 3]."""
    square = rgb_HWC[box.top : box.top + box.side, box.left : box.left + box.side]
    return resize(square, box.resized)[box.y : box.y + size, box.x : box.x + size]


def transformer_crop(width: int, height: int, size: int, integers: Integers) -> CropBox:
    """Listing 2: the crop from which the transformer's codes come. The square lies in the central quarter of the
    slack, its side becomes t in [size, min(side, 9/8 size)], and the window is anywhere in it. No flip."""
    side = min(width, height)
    left, top = (_central_offset(slack, integers) for slack in (width - side, height - side))
    resized = integers(size, max(size, min(side, round(9 / 8 * size))) + 1)
    x, y = (integers(0, resized - size + 1) for _ in range(2))
    return CropBox(left, top, side, resized, x, y)


def _central_offset(slack: int, integers: Integers) -> int:
    low = 3 * slack // 8
    return integers(low, max(low + 1, 5 * slack // 8))


def dvae_crop(width: int, height: int, size: int, integers: Integers) -> tuple[CropBox, bool]:
    """Listing 1: the crop and flip with which the dVAE is trained. The square lies anywhere; its side becomes t in
    [min(s, 9/8 size), min(s, 12/8 size)] (never under `size`); the window is anywhere; half are mirrored."""
    side = min(width, height)
    left, top = integers(0, width - side + 1), integers(0, height - side + 1)
    low, high = (max(size, min(side, round(ratio * size))) for ratio in (9 / 8, 12 / 8))
    resized = integers(low, high + 1)
    x, y = (integers(0, resized - size + 1) for _ in range(2))
    return CropBox(left, top, side, resized, x, y), bool(integers(0, 2))


# --- pixels to the model's numbers -----------------------------------------------------------------------------------


def to_tensor(views_BHWC: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W] in 0..1, laid out channels-last (what convolutions run fastest on)."""
    x_BCHW = torch.from_numpy(views_BHWC).permute(0, 3, 1, 2)
    return x_BCHW.to(torch.float32, memory_format=torch.channels_last) / 255


def to_uint8(x_BCHW: torch.Tensor) -> np.ndarray:
    """float [B, 3, H, W] in 0..1 to uint8 [B, H, W, 3]."""
    return (x_BCHW.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def phi(x: torch.Tensor) -> torch.Tensor:
    """0..1 into (eps, 1 - eps): appendix A.3."""
    return (1 - 2 * LOGIT_LAPLACE_EPS) * x + LOGIT_LAPLACE_EPS


def phi_inverse(y: torch.Tensor) -> torch.Tensor:
    """Back to 0..1, clamped: what the decoder says outside the range of phi is black or white."""
    return ((y - LOGIT_LAPLACE_EPS) / (1 - 2 * LOGIT_LAPLACE_EPS)).clamp(0, 1)
