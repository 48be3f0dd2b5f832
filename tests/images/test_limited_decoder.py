"""Files that make their decoder take memory or time: they end as rejects, soon, and others are as before."""

from __future__ import annotations

import io
import re
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from models import pixels
from pipeline.images import limited_decoder
from pipeline.images.validate import ANY_IMAGE, MAX_SCANS, ImageConfig, ImageRejected, decode
from tests.support.images import encoded, jpeg, photo
from tests.support.repetition import examples

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")


def rejected(data: bytes) -> str:
    with pytest.raises(ImageRejected) as rejection:
        decode(data, ANY_IMAGE)
    assert rejection.value.reason == "corrupt_image"
    return rejection.value.detail


@pytest.mark.parametrize("form", ["TIFF", pytest.param("AVIF", marks=needs_avif)])
def test_pixels_are_those_of_this_process(form):
    data = encoded(photo(), form)
    np.testing.assert_array_equal(decode(data, ImageConfig()), pixels.decode_rgb(data))


def tiff(width: int, height: int, tags: dict[int, int], data: bytes = bytes(4096)) -> bytes:
    """A TIFF of one tile or strip, whose directory says what it likes."""
    fields = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1} | tags
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    end = 8 + 2 + len(entries) + 4
    directory = struct.pack("<H", len(fields)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory.replace(struct.pack("<I", 0xDA7A), struct.pack("<I", end)) + data


def test_a_tile_that_is_larger_than_its_image_takes_no_memory():
    """40,000 x 50,000 px, in an image of 200 x 150."""
    tile = zlib.compress(bytes(10_000_000))
    rejected(tiff(200, 150, {322: 40_000, 323: 50_000, 324: 0xDA7A, 325: len(tile)}, tile))
    np.testing.assert_array_equal(decode(encoded(photo(), "TIFF"), ANY_IMAGE), np.asarray(photo()))
    assert max(map(peak_mb, limited_decoder._idle)) < 500


def peak_mb(decoder: limited_decoder._Decoder) -> int:
    """Memory of a decoder's process at its worst moment."""
    status = Path(f"/proc/{decoder._process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) // 1000


@needs_avif
def test_an_avif_whose_frame_is_larger_than_it_says():
    """The box `ispe` says 200 x 152 of a frame of 4,000 x 3,000."""
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 3000)).save(buffer, "AVIF", speed=10)
    data = buffer.getvalue()
    box = data.index(b"ispe")
    data = data[: box + 8] + struct.pack(">II", 200, 152) + data[box + 16 :]
    try:
        rgb_HWC = decode(data, ANY_IMAGE)
    except ImageRejected as rejection:
        assert rejection.reason == "corrupt_image"
    else:
        assert rgb_HWC.shape == (152, 200, 3)
    assert max(map(peak_mb, limited_decoder._idle), default=0) < 500


def test_memory_has_a_limit():
    """81 megapixels, allowed as much as an image of one."""
    data = encoded(Image.new("L", (9000, 9000)), "TIFF", compression="tiff_adobe_deflate")
    with pytest.raises(pixels.ImageError, match=r"memory|not decoded"):
        limited_decoder._Decoder().decode(data, 1)


def test_time_has_a_limit(monkeypatch):
    monkeypatch.setattr(limited_decoder, "_idle", [])
    monkeypatch.setattr(limited_decoder, "SECONDS", -1.0)
    began = time.monotonic()
    with pytest.raises(pixels.ImageError, match="not decoded: it takes longer than its size explains"):
        limited_decoder.to_rgb(encoded(photo(), "TIFF"), 200, 150)
    assert time.monotonic() - began < 5 and not limited_decoder._idle


def test_a_decoder_that_ends_is_replaced(monkeypatch):
    monkeypatch.setattr(limited_decoder, "_idle", [])
    data = encoded(photo(), "TIFF")
    limited_decoder.to_rgb(data, 200, 150)
    [decoder] = limited_decoder._idle
    decoder._process.kill()
    decoder._process.wait()
    assert limited_decoder.to_rgb(data, 200, 150).shape == (150, 200, 3)


@examples(60)
@given(st.sampled_from(["TIFF", *(["AVIF"] if features.check("avif") else [])]), st.data())
def test_any_damage_is_an_image_or_a_reject(form, data):
    changed = bytearray(encoded(photo(), form))
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(12, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(changed), ImageConfig()).dtype == np.uint8
    except ImageRejected as rejection:
        assert rejection.detail


# --- JPEG ------------------------------------------------------------------------------------------------------------


def with_scans(number: int) -> bytes:
    """A progressive JPEG, with further scans that hold nothing."""
    data = jpeg(progressive=True)
    empty = bytes.fromhex("ffda0008010100013f00")
    return data[:-2] + empty * number + data[-2:]


def test_a_jpeg_of_many_empty_scans_is_not_decoded():
    began = time.monotonic()
    assert f"at most {MAX_SCANS} are decoded" in rejected(with_scans(80_000))
    assert time.monotonic() - began < 2


def test_usual_scans_are_decoded():
    assert decode(jpeg(progressive=True), ImageConfig()).shape == (150, 200, 3)
    assert decode(jpeg(), ImageConfig()).shape == (150, 200, 3)


def test_what_looks_like_a_scan_in_metadata_is_none():
    data = jpeg()
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 60_000) + b"\xff\xda\x00\x08" * 15_000
    assert decode(data[:2] + comment + data[2:], ImageConfig()).shape == (150, 200, 3)


def test_float_images_are_converted_in_strips(monkeypatch):
    grey = np.linspace(-1, 3, 300 * 200, dtype=np.float32).reshape(200, 300)
    whole = pixels._deep_grey_to_rgb(Image.fromarray(grey))
    monkeypatch.setattr(pixels, "_STRIP_PIXELS", 1000)
    np.testing.assert_array_equal(pixels._deep_grey_to_rgb(Image.fromarray(grey)), whole)
