"""Pixels mean the same everywhere: every format to upright RGB, the paper's crops, resizing, phi."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from models import pixels
from models.pixels import ImageError, NotAnImage, TooManyPixels, decode_rgb
from tests.support.images import encoded, jpeg, large_jpeg, photo, png_chunk, png_of, text_bomb
from tests.support.repetition import examples

PHOTO = photo(120, 80)
HAS_AVIF = bool(features.check("avif"))
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}}
LOSSY = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}, "GIF": {}} | (
    {"AVIF": {"quality": 95}} if HAS_AVIF else {}
)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int)).mean()


# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", LOSSLESS)
def test_lossless_formats(form):
    rgb = decode_rgb(encoded(PHOTO, form, **LOSSLESS[form]))
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, np.asarray(PHOTO))


@pytest.mark.parametrize("form", LOSSY)
def test_lossy_formats(form):
    assert difference(decode_rgb(encoded(PHOTO, form, **LOSSY[form])), np.asarray(PHOTO)) < 12


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(form):
    frames = [photo(120, 80, seed) for seed in range(3)]
    data = encoded(
        frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {})
    )
    assert difference(decode_rgb(data), np.asarray(frames[0])) < (12 if form == "GIF" else 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, dict[str, object]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    data = encoded(PHOTO, form, exif=exif.tobytes(), **options.get(form, {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    rgb = decode_rgb(data)
    assert rgb.shape[:2] == ((80, 120) if orientation < 5 else (120, 80))
    np.testing.assert_array_equal(rgb, expected)


@pytest.mark.parametrize(
    "exif",
    [b"", b"nonsense", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x01A\0\0\0"],
)
def test_damaged_exif_turns_nothing(exif):
    assert decode_rgb(jpeg(120, 80, exif=b"Exif\0\0" + exif)).shape == (80, 120, 3)


def test_transparency_is_laid_on_white():
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, :, 0] = 255
    rgba[:, :16, 3], rgba[:, 16:32, 3], rgba[:, 32:, 3] = 0, 128, 255
    for form in ("PNG", "WEBP", "TIFF"):
        rgb = decode_rgb(encoded(Image.fromarray(rgba), form, **LOSSLESS[form]))
        assert (rgb[:, :16] == 255).all(), form
        assert (rgb[:, 16:32] == [255, 127, 127]).all(), form
        assert (rgb[:, 32:] == [255, 0, 0]).all(), form


def test_grey_with_transparency():
    pixels_HW = Image.merge("LA", (Image.new("L", (64, 64), 100), Image.new("L", (64, 64), 0)))
    assert (decode_rgb(encoded(pixels_HW, "PNG")) == 255).all()


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_palette_with_transparency(transparency):
    image = Image.new("P", (64, 64))
    image.putpalette([200, 30, 30, 0, 0, 200])
    image.paste(1, (0, 0, 32, 64))
    rgb = decode_rgb(encoded(image, "PNG", transparency=transparency))
    assert (rgb[:, :32] == 255).all()
    assert (rgb[:, 32:] == [200, 30, 30]).all()


def test_colour_and_grey_with_one_transparent_value():
    for image, value in ((Image.new("RGB", (64, 64), (9, 8, 7)), (9, 8, 7)), (Image.new("L", (64, 64), 9), 9)):
        assert (decode_rgb(encoded(image, "PNG", transparency=value)) == 255).all()
        assert (decode_rgb(encoded(image, "PNG")) <= 9).all()


def test_transparent_gif():
    image = Image.new("P", (64, 64))
    image.putpalette([200, 30, 30, 0, 0, 200])
    image.paste(1, (0, 0, 32, 64))
    rgb = decode_rgb(encoded(image, "GIF", transparency=1))
    assert (rgb[:, :32] == 255).all()
    assert (rgb[:, 32:] == [200, 30, 30]).all()


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk(form):
    data = encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), form)
    assert difference(decode_rgb(data), np.full((64, 64, 3), [255, 0, 0])) < 3


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_divided(form):
    grey = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    rgb = decode_rgb(encoded(Image.fromarray(grey), form))
    np.testing.assert_array_equal(rgb, np.repeat(np.rint(grey / 257).astype(np.uint8)[:, :, None], 3, 2))


def test_dark_images_of_sixteen_bits_stay_dark():
    assert decode_rgb(encoded(Image.fromarray(np.full((64, 64), 255, np.uint16)), "PNG")).max() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 0.5, 1], np.float32), [0, 128, 255]),
        (np.array([0, 127.6, 255], np.float32), [0, 128, 255]),
        (np.array([-3, np.nan, 1], np.float32), [0, 0, 255]),
        (np.array([0, 65535 / 2, 65535], np.float32), [0, 128, 255]),
        (np.array([0, 1, 255], np.int32), [0, 1, 255]),
        (np.array([-5, 257, 65535], np.int32), [0, 1, 255]),
    ],
)
def test_wide_grey(values, expected):
    rgb = decode_rgb(encoded(Image.fromarray(np.tile(values, (64, 1))), "TIFF"))
    assert rgb[0, :, 0].tolist() == expected


def test_one_bit():
    image = Image.new("1", (64, 64), 0)
    image.paste(1, (0, 0, 32, 64))
    rgb = decode_rgb(encoded(image, "PNG"))
    assert (rgb[:, :32] == 255).all()
    assert (rgb[:, 32:] == 0).all()


def test_large_images_are_converted_in_strips(monkeypatch):
    alpha = PHOTO.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(PHOTO.size))
    files = [encoded(PHOTO, "PNG"), encoded(alpha, "PNG"), encoded(PHOTO.quantize(16), "PNG", transparency=3)]
    at_once = [decode_rgb(data) for data in files]
    monkeypatch.setattr(pixels, "_STRIP_PIXELS", 7 * 120)
    for data, rgb in zip(files, at_once, strict=True):
        np.testing.assert_array_equal(decode_rgb(data), rgb)


# --- damaged files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"<!DOCTYPE html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"%PDF-1.7 ......",
        b"8BPS\0\x01......",
        b"RIFF....WAVEfmt ",
    ],
)
def test_what_is_no_image(data):
    with pytest.raises(NotAnImage, match="begins with"):
        decode_rgb(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", *["AVIF"] * HAS_AVIF])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_truncated_files_are_errors(form, share):
    data = encoded(PHOTO, form)
    with pytest.raises(ImageError) as error:
        decode_rgb(data[: max(13, int(len(data) * share))])
    assert not isinstance(error.value, NotAnImage | TooManyPixels)
    assert "0x" not in str(error.value)  # no addresses in memory: details are the same from run to run
    assert "\n" not in str(error.value)


@examples(150)
@given(st.data())
def test_damage_anywhere_is_a_image_or_an_error(data):
    form = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = bytearray(encoded(photo(32, 24), form, **({} if form in ("GIF", "BMP") else {"exif": exif.tobytes()})))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(file), 400) - 1))
        file[place] = data.draw(st.integers(0, 255))
    try:
        rgb = decode_rgb(bytes(file), max_pixels=100_000)
    except ImageError:
        return
    assert rgb.dtype == np.uint8
    assert rgb.ndim == 3
    assert rgb.shape[2] == 3


@pytest.mark.parametrize("data", [png_of(60_000, 60_000), png_of(12_000, 9_000), large_jpeg(1001, 1000)])
def test_more_pixels_than_allowed(data):
    with pytest.raises(TooManyPixels):
        decode_rgb(data, max_pixels=min(pixels.MAX_PIXELS, 1_000_000))


def test_the_limit_itself_is_allowed():
    assert decode_rgb(large_jpeg(1000, 1000), max_pixels=1_000_000).shape == (1000, 1000, 3)


def test_bombs_in_metadata():
    profile = png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(16 << 20)))
    for data in (text_bomb(), png_of(200, 150, profile)):
        with pytest.raises(ImageError, match="too large"):
            decode_rgb(data)


# --- the paper's crops -----------------------------------------------------------------------------------------------


def test_seeded_integers_never_change():
    """They decide the crops of data sets that exist already."""
    integers = pixels.seeded_randint("0123456789abcdef0123456789abcdef/0")
    assert [integers(0, 1000) for _ in range(6)] == [562, 473, 46, 631, 153, 560]
    other = pixels.seeded_randint("0123456789abcdef0123456789abcdef/1")
    assert [other(0, 1000) for _ in range(3)] == [477, 238, 456]


def test_boxes_never_change():
    boxes = [pixels.transformer_crop(640, 480, 256, pixels.seeded_randint(f"key/{draw}")) for draw in range(3)]
    assert boxes == [(80, 0, 480, 259, 3, 0), (61, 0, 480, 264, 2, 1), (78, 0, 480, 287, 10, 16)]
    assert pixels.dvae_crop(640, 480, 256, pixels.seeded_randint("key/0")) == ((6, 0, 480, 312, 43, 50), False)


sides = st.integers(64, 5000)


@settings(deadline=None)
@given(sides, sides, st.sampled_from([64, 128, 256]), st.text(max_size=8))
def test_listing_2(width, height, size, seed):
    box = pixels.transformer_crop(width, height, size, pixels.seeded_randint(seed))
    side = min(width, height)
    assert box.side == side
    for offset, slack in ((box.left, width - side), (box.top, height - side)):
        assert 0 <= offset <= slack
        assert 3 * slack // 8 <= offset <= max(3 * slack // 8, 5 * slack // 8)
    assert size <= box.resized <= max(size, min(side, round(9 / 8 * size)))
    assert 0 <= box.x <= box.resized - size
    assert 0 <= box.y <= box.resized - size


@settings(deadline=None)
@given(sides, sides, st.sampled_from([64, 128, 256]), st.text(max_size=8))
def test_listing_1(width, height, size, seed):
    box, flip = pixels.dvae_crop(width, height, size, pixels.seeded_randint(seed))
    side = min(width, height)
    assert box.side == side
    assert 0 <= box.left <= width - side
    assert 0 <= box.top <= height - side
    assert max(size, min(side, round(9 / 8 * size))) <= box.resized <= max(size, min(side, round(12 / 8 * size)))
    assert 0 <= box.x <= box.resized - size
    assert 0 <= box.y <= box.resized - size
    assert isinstance(flip, bool)


def test_both_listings_use_their_whole_range():
    integers = pixels.seeded_randint("range")
    second = [pixels.transformer_crop(800, 400, 256, integers) for _ in range(3000)]
    assert {box.left for box in second} == set(range(150, 250))
    assert {box.resized for box in second} == set(range(256, 289))
    first = [pixels.dvae_crop(800, 400, 256, integers) for _ in range(6000)]
    assert {box.left for box, _ in first} == set(range(401))
    assert {box.resized for box, _ in first} == set(range(288, 385))
    assert 2700 < sum(flip for _, flip in first) < 3300


@settings(deadline=None, max_examples=40)
@given(st.integers(64, 300), st.integers(64, 300), st.sampled_from([64, 128]), st.text(max_size=4))
def test_a_crop_has_its_size(width, height, size, seed):
    rgb = np.zeros((height, width, 3), np.uint8)
    box = pixels.transformer_crop(width, height, size, pixels.seeded_randint(seed))
    assert pixels.apply_crop(rgb, box, size).shape == (size, size, 3)
    box, _ = pixels.dvae_crop(width, height, size, pixels.seeded_randint(seed))
    assert pixels.apply_crop(rgb, box, size).shape == (size, size, 3)


def test_a_crop_shows_what_its_box_says():
    y, x = np.mgrid[0:400, 0:800]
    rgb = np.stack([x % 256, y % 256, x // 256], 2).astype(np.uint8)
    view = pixels.apply_crop(rgb, pixels.CropBox(left=200, top=0, side=400, resized=400, x=30, y=50), 256)
    np.testing.assert_array_equal(view, rgb[50:306, 230:486])


def test_down_is_by_area():
    board = np.kron(np.indices((32, 32)).sum(0) % 2 * 255, np.ones((2, 2))).astype(np.uint8)
    rgb = np.repeat(board[:, :, None], 3, 2)
    np.testing.assert_array_equal(pixels.resize(rgb, 32), rgb[::2, ::2])  # each pixel the mean of its four
    assert np.abs(pixels.resize(rgb, 16).astype(int) - 127.5).max() <= 0.5
    stripes = np.zeros((3, 3, 3), np.uint8)
    stripes[:, 0] = 240
    assert pixels.resize(stripes, 2)[0, :, 0].tolist() == [160, 0]  # one pixel and a half each


def test_up_is_bicubic():
    import cv2

    rgb = np.asarray(photo(64, 64))
    up = pixels.resize(rgb, 100)
    np.testing.assert_array_equal(up, cv2.resize(rgb, (100, 100), interpolation=cv2.INTER_CUBIC))
    assert pixels.resize(rgb, 64) is rgb


# --- pixels to the model's numbers -----------------------------------------------------------------------------------


def test_phi_and_its_inverse():
    x = torch.linspace(0, 1, 101)
    y = pixels.phi(x)
    assert y.min().item() == pytest.approx(0.1)
    assert y.max().item() == pytest.approx(0.9)
    torch.testing.assert_close(pixels.phi_inverse(y), x)
    assert pixels.phi_inverse(torch.tensor([-1.0, 0.05, 0.95, 2.0])).tolist() == [0, 0, 1, 1]


def test_every_byte_survives_the_way_to_the_model_and_back():
    views = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    x = pixels.to_tensor(views)
    assert x.shape == (1, 3, 16, 16)
    assert x.dtype == torch.float32
    np.testing.assert_array_equal(pixels.to_uint8(x), views)
    np.testing.assert_array_equal(pixels.to_uint8(pixels.phi_inverse(pixels.phi(x))), views)
    assert pixels.to_uint8(torch.tensor([-0.5, 0.5, 1.5]).view(1, 3, 1, 1)).ravel().tolist() == [0, 128, 255]


def test_a_header_that_asks_for_too_much_memory_is_the_files_fault(monkeypatch):
    def greedy(*_, **__):
        raise MemoryError

    monkeypatch.setattr(pixels.Image, "open", greedy)
    with pytest.raises(pixels.ImageError, match="its header asks for too much memory"):
        pixels.open_image(b"\xff\xd8\xff" + bytes(100))
    monkeypatch.setattr(pixels, "_HEADER_BYTES", 1 << 60)
    with pytest.raises(MemoryError):
        pixels.open_image(b"\xff\xd8\xff" + bytes(100))
