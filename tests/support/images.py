"""Image files made on the spot, good ones and others."""

from __future__ import annotations

import functools
import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from tests.support.narrowing import instance

JPEG_START = b"\xff\xd8\xff\xe0"


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def text_of(image: Image.Image) -> dict[str, str]:
    """The texts in a PNG file."""
    return {name: str(text) for name, text in instance(image, PngImageFile).text.items()}


def photo(width: int = 200, height: int = 150, seed: int = 0) -> Image.Image:
    """Coloured blocks and some noise: it compresses about as a photograph does."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 230, (-(-height // 16), -(-width // 16), 3))
    pixels = np.kron(blocks, np.ones((16, 16, 1)))[:height, :width] + rng.integers(0, 25, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def jpeg(width: int = 200, height: int = 150, seed: int = 0, **options: object) -> bytes:
    return encoded(photo(width, height, seed), "JPEG", **options)


def write_image_tar(path: Path, count: int) -> None:
    """A tar file of coloured squares, 64 px a side."""
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            data = encoded(Image.new("RGB", (64, 64), (8 * number % 256, 0, 255 - 8 * number % 256)), "PNG")
            info = tarfile.TarInfo(f"{number:03d}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def large_jpeg(width: int, height: int) -> bytes:
    """Few bytes for many pixels."""
    return encoded(Image.new("RGB", (width, height), "teal"), "JPEG")


def gone_jpeg() -> bytes:
    """A small file with which a host may answer for every image that it does not have any more."""
    return encoded(Image.new("RGB", (160, 100), "grey"), "JPEG")


def rotated_jpeg() -> bytes:
    """Stored at 200 x 150 px; to be turned a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(exif=exif.tobytes())


def animated_gif() -> bytes:
    frames = [photo(seed=seed) for seed in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that announces its size, with hardly any pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + png_chunk(b"IEND", b"")


@functools.cache
def text_bomb() -> bytes:
    """A PNG with a comment that inflates to 16 MiB."""
    return png_of(200, 150, png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(16 << 20))))


@functools.cache
def gzip_bomb() -> bytes:
    """Inflates to 128 MiB, and begins as a JPEG does."""
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(JPEG_START) + packer.compress(bytes(128 << 20)) + packer.flush()
