"""Writes odd/: small picture files that test a reader, built from pictures of images/.

    python sample/make_oddities.py

Nothing is random. Encoded bytes depend on the version of Pillow and its codecs; the pixels hardly do.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images"
ODD = HERE / "odd"
ORIENTATION = 0x0112  # EXIF tag; 6: turn a quarter clockwise to see it upright
BOMB_SIDE = 60_000  # px


def _image(name: str, size: tuple[int, int] | None = None) -> Image.Image:
    image = Image.open(IMAGES / name).convert("RGB")
    return image.resize(size, Image.Resampling.LANCZOS) if size else image


def _middle(name: str, width: int, height: int) -> Image.Image:
    """A centred cut of exactly width x height."""
    image = _image(name)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def rotated() -> bytes:
    """A JPEG stored on its side; the EXIF orientation says how to turn it."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    stored = _image("windmill13.webp").transpose(Image.Transpose.ROTATE_90)
    return _encoded(stored, "JPEG", quality=85, exif=exif.tobytes())


def transparent() -> bytes:
    """An RGBA PNG that fades out towards its corners."""
    image = _image("coffee.jpg", (240, 160))
    y, x = np.mgrid[-1:1:160j, -1:1:240j]
    alpha = np.clip((1.2 - np.hypot(x, y)) * 4 * 255, 0, 255).astype(np.uint8)
    image.putalpha(Image.fromarray(alpha))
    return _encoded(image, "PNG", optimize=True)


def palette() -> bytes:
    """A PNG of 32 colours, one of them transparent."""
    image = Image.open(IMAGES / "tulips.png").convert("RGBA")
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image)
    indexed = flat.convert("RGB").quantize(32, dither=Image.Dither.NONE)
    return _encoded(indexed, "PNG", transparency=indexed.getpixel((0, 0)), optimize=True)


def cmyk() -> bytes:
    """A JPEG in the four inks of print."""
    return _encoded(_image("scarlet_macaw.jpg", (320, 240)).convert("CMYK"), "JPEG", quality=85)


def grey16() -> bytes:
    """A grey PNG of 16 bits a pixel."""
    grey = np.asarray(_image("castleclinton.jpg", (204, 160)).convert("L"), np.uint16) * 257
    return _encoded(Image.fromarray(grey), "PNG", optimize=True)


def animated() -> bytes:
    """A GIF of three frames."""
    image = Image.open(IMAGES / "cartoon_biplane.png").convert("RGBA")
    frames = []
    for step in range(3):
        frame = Image.new("RGBA", (160, 128), "white")
        frame.alpha_composite(image, (16 * step, 0))
        frames.append(frame.convert("RGB").quantize(64, dither=Image.Dither.NONE))
    return _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=200, loop=0)


def half() -> bytes:
    """A JPEG whose width is exactly half its height: the end of the range, still in."""
    return _encoded(_middle("leaningtowerofpisa.webp", 160, 320), "JPEG", quality=85)


def wide() -> bytes:
    """A JPEG one pixel wider than twice its height: just out of the range."""
    return _encoded(_middle("winter_palace.webp", 319, 159), "JPEG", quality=85)


def tiny() -> bytes:
    """A PNG of 40 x 40 px."""
    return _encoded(_image("lemon.png", (40, 40)), "PNG", optimize=True)


def truncated() -> bytes:
    """The first 60 % of a JPEG."""
    whole = (IMAGES / "bison.jpg").read_bytes()
    return whole[: len(whole) * 6 // 10]


def garbled() -> bytes:
    """A PNG with a damaged stretch in its compressed pixels."""
    data = bytearray((IMAGES / "comb.png").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    return bytes(data)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """A PNG of a hundred bytes or so that announces 60,000 x 60,000 px."""
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def page() -> bytes:
    """An HTML page under a picture's name."""
    return b"<!DOCTYPE html>\n<html><head><title>Moved</title></head><body>This picture has moved.</body></html>\n"


def unavailable(side: int) -> bytes:
    """What a photo host shows for a picture that was taken down: a grey square with a crossed frame."""
    image = Image.new("RGB", (side, side), (242, 242, 244))
    draw = ImageDraw.Draw(image)
    edge = side // 4
    draw.rectangle((edge, edge, side - edge, side - edge), outline=(170, 170, 176), width=3)
    draw.line((edge, edge, side - edge, side - edge), fill=(170, 170, 176), width=3)
    return _encoded(image, "PNG", optimize=True)


ODDITIES: dict[str, Callable[[], bytes]] = {
    "animated.gif": animated,
    "bomb.png": bomb,
    "cmyk.jpg": cmyk,
    "empty.jpg": bytes,
    "garbled.png": garbled,
    "grey16.png": grey16,
    "half.jpg": half,
    "page.jpg": page,
    "palette.png": palette,
    "photo_unavailable.png": lambda: unavailable(240),
    "photo_unavailable_l.png": lambda: unavailable(500),
    "rotated.jpg": rotated,
    "tiny.png": tiny,
    "transparent.png": transparent,
    "truncated.jpg": truncated,
    "wide.jpg": wide,
}


def write_oddities(directory: Path) -> None:
    """Every file of ODDITIES under `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, make in ODDITIES.items():
        (directory / name).write_bytes(make())


if __name__ == "__main__":
    write_oddities(ODD)
