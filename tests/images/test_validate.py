"""Which images training can use, and why not."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from models.pixels import ImageError, decode_rgb
from pipeline.images.validate import (
    ImageConfig,
    ImageRejected,
    check_dimensions,
    check_header,
    checked_size,
    decode,
    decode_scaled,
    exif_text,
    suffix,
)
from tests.support.images import encoded, jpeg, large_jpeg, photo, png_of, rotated_jpeg

DEFAULTS = ImageConfig()


def reason(data: bytes, config: ImageConfig = DEFAULTS) -> str:
    try:
        decode(data, config)
    except ImageRejected as fault:
        assert fault.detail
        return fault.reason.value
    return "good"


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (64, 64, None),
        (64, 128, None),
        (128, 64, None),
        (1000, 2000, None),
        (2000, 1000, None),
        (333, 666, None),
        (64, 129, "aspect_ratio"),
        (129, 64, "aspect_ratio"),
        (1000, 2001, "aspect_ratio"),
        (2001, 1000, "aspect_ratio"),
        (999, 2000, "aspect_ratio"),
        (1, 30_000, "aspect_ratio"),
        (63, 64, "too_small"),
        (64, 63, "too_small"),
        (1, 1, "too_small"),
        (0, 10, "corrupt_image"),
        (10, 0, "corrupt_image"),
    ],
)
def test_size_fault(width, height, expected):
    fault = check_dimensions(width, height, DEFAULTS)
    assert (fault and fault[0].value) == expected


@given(st.integers(64, 10**6), st.integers(64, 10**6))
def test_the_ratio_is_exact(width, height):
    assert (check_dimensions(width, height, DEFAULTS) is None) == (width <= 2 * height and height <= 2 * width)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (jpeg(128, 64), "good"),
        (jpeg(64, 128), "good"),
        (jpeg(129, 64), "aspect_ratio"),
        (jpeg(64, 129), "aspect_ratio"),
        (jpeg(63, 63), "too_small"),
        (rotated_jpeg(), "good"),
        (jpeg()[:-900], "corrupt_image"),
        (jpeg()[:200], "corrupt_image"),
        (b"", "not_an_image"),
        (b"<html></html>", "not_an_image"),
        (png_of(60_000, 60_000), "too_many_pixels"),
        (png_of(20_000, 10_000), "too_many_pixels"),
        (png_of(1, 30_000), "aspect_ratio"),
        (png_of(200, 150), "corrupt_image"),
    ],
)
def test_decode(data, expected):
    assert reason(data) == expected


def test_limits_are_settings():
    assert reason(jpeg(300, 100), ImageConfig(max_ratio=3.0)) == "good"
    assert reason(jpeg(40, 40), ImageConfig(min_side=40)) == "good"
    assert reason(large_jpeg(1000, 1001), ImageConfig(max_pixels=1_000_000)) == "too_many_pixels"
    assert reason(large_jpeg(1000, 1000), ImageConfig(max_pixels=1_000_000)) == "good"


def test_the_ratio_is_that_of_the_upright_image():
    wide = ImageConfig(min_ratio=1.0)
    assert reason(jpeg(200, 150), wide) == "good"
    assert reason(rotated_jpeg(), wide) == "aspect_ratio"  # stored at 200 x 150 px
    assert decode(rotated_jpeg(), ImageConfig(max_ratio=1.0)).shape == (200, 150, 3)


def test_nothing_is_decoded_that_the_header_rejects(monkeypatch):
    from models import pixels

    monkeypatch.setattr(pixels, "to_rgb", None)
    assert reason(jpeg(300, 100)) == "aspect_ratio"
    assert reason(jpeg(40, 40)) == "too_small"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_the_beginning_tells_the_size(form):
    data = encoded(photo(200, 150), form)
    assert check_header(data[:8192], DEFAULTS) == (200, 150)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_every_beginning_is_good_so_far(form):
    data = encoded(photo(200, 150), form)
    for length in [*range(12, 200), *range(200, len(data), 997)]:
        assert check_header(data[:length], DEFAULTS) in (None, (200, 150)), length


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (jpeg(300, 100), "aspect_ratio"),
        (jpeg(40, 40), "too_small"),
        (png_of(60_000, 60_000), "too_many_pixels"),
        (b"<!DOCTYPE html><html>" * 60, "not_an_image"),
        (encoded(photo(300, 100), "PNG"), "aspect_ratio"),
    ],
)
def test_the_beginning_rejects(data, expected):
    with pytest.raises(ImageRejected) as fault:
        check_header(data[:1024], DEFAULTS)
    assert fault.value.reason == expected


def test_the_beginning_of_a_image_with_much_exif_tells_nothing_yet():
    exif = Image.Exif()
    exif[0x9286] = b"x" * 30_000  # a comment
    data = jpeg(exif=exif.tobytes())
    assert check_header(data[:8192], DEFAULTS) is None
    assert check_header(data[:65_536], DEFAULTS) == (200, 150)


def test_a_image_that_exif_may_turn_is_not_rejected_early():
    assert check_header(rotated_jpeg()[:1024], ImageConfig(max_ratio=1.0)) == (200, 150)
    assert checked_size(io.BytesIO(rotated_jpeg()), ImageConfig(max_ratio=1.0)) == (200, 150)


def test_decoded_images_are_upright_rgb():
    rgb = decode(encoded(photo(80, 120).convert("CMYK"), "JPEG"), DEFAULTS)
    assert rgb.shape == (120, 80, 3)
    assert rgb.dtype == np.uint8


@pytest.mark.parametrize(
    ("form", "ending"),
    [
        ("JPEG", "jpg"),
        ("MPO", "jpg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("TIFF", "tif"),
        *[("AVIF", "avif")] * bool(features.check("avif")),
    ],
)
def test_suffix(form, ending):
    data = encoded(photo(64, 64), form)
    assert suffix(data) == ending
    assert reason(data) == "good"


# --- at a reduced scale ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((400, 300), None, (400, 300)),
        ((400, 300), 301, (400, 300)),
        ((400, 300), 151, (400, 300)),
        ((400, 300), 150, (200, 150)),
        ((401, 301), 150, (201, 151)),
        ((400, 300), 75, (100, 75)),
        ((400, 300), 1, (50, 38)),
    ],
)
def test_a_jpeg_is_decoded_at_the_scale_that_is_needed(size, side, expected):
    found = decode_scaled(jpeg(*size), DEFAULTS, side)
    assert (found.rgb_HWC.shape[1], found.rgb_HWC.shape[0]) == expected
    assert (found.width, found.height) == size


def test_a_reduced_image_looks_like_the_whole_one():
    data = encoded(photo(512, 384).resize((1024, 768), Image.Resampling.BICUBIC), "JPEG", quality=90)
    whole = decode(data, DEFAULTS)
    for side, scale in ((384, 2), (192, 4)):
        reduced = decode_scaled(data, DEFAULTS, side).rgb_HWC
        averaged = whole.reshape(768 // scale, scale, 1024 // scale, scale, 3).mean((1, 3))
        assert reduced.shape == averaged.shape
        assert np.abs(reduced - averaged).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_image_is_upright(orientation):
    image = photo(400, 300)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "JPEG", exif=exif.tobytes(), quality=95)
    whole, reduced = decode(data, DEFAULTS), decode_scaled(data, DEFAULTS, 150)
    assert (reduced.height, reduced.width) == whole.shape[:2]
    small = np.asarray(Image.fromarray(whole).resize(reduced.rgb_HWC.shape[1::-1], Image.Resampling.BOX), np.int16)
    assert np.abs(small - reduced.rgb_HWC).mean() < 12
    assert np.abs(small[::-1, ::-1] - reduced.rgb_HWC).mean() > 30


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "L"), ("PNG", "RGB"), ("WEBP", "L"), ("WEBP", "RGB")],
)
def test_whole_images_are_what_pillow_makes_of_them(form, mode):
    data = encoded(photo(201, 151).convert(mode), form)
    np.testing.assert_array_equal(decode(data, DEFAULTS), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_exif_data_behind_the_pixels_are_read():
    """Of a PNG they may come last, when its pixels are decoded and its file is closed."""
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    data = encoded(photo(100, 80), "PNG", exif=exif.tobytes())
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    without = data.replace(chunk, b"")
    end = without.index(b"IEND") - 4
    found = decode_scaled(without[:end] + chunk + without[end:], DEFAULTS, None)
    assert json.loads(exif_text(found.exif)) == {"Make": "A maker"}


def test_damage_is_found_at_every_scale(exhaustive):
    """Cut files and flipped bits: what the whole decoding rejects, the reduced one does too, and nothing else."""
    rng = np.random.default_rng(0)
    verdicts = set()
    for number in range(2000 if exhaustive else 60):
        data = bytearray(jpeg(300, 200, seed=number, progressive=bool(number % 2)))
        if number % 3:
            for place in rng.integers(0, len(data), 2):
                data[place] ^= 1 << int(rng.integers(0, 8))
        else:
            del data[int(rng.integers(1, len(data))) :]
        found: list[tuple[int, int] | str] = []
        for side in (None, 1, 64):
            try:
                found.append(decode_scaled(bytes(data), DEFAULTS, side)[1:3])
            except ImageRejected as fault:
                found.append(fault.reason.value)
        with contextlib.suppress(ImageError, ValueError):
            upright = decode_rgb(bytes(data))
            found.append(upright.shape[1::-1] if min(upright.shape[:2]) >= 64 else found[0])
        assert len(set(found)) == 1, number
        verdicts.add(found[0])
    assert {(300, 200), "corrupt_image"} <= verdicts
