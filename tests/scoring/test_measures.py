"""Measures of images and captions, on images of which the numbers are known."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from models.scoring import measures

RANDOM = np.random.RandomState(0)
NOISE = RANDOM.randint(0, 256, (200, 300, 3)).astype(np.uint8)


def flat(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((100, 120, 3), colour, np.uint8)


def framed(inner: np.ndarray, pad: int, colour: int) -> np.ndarray:
    return np.pad(inner, ((pad, pad), (pad, pad), (0, 0)), constant_values=colour)


def page_of_text(lines: int) -> np.ndarray:
    image = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(image)
    for line in range(lines):
        draw.text((10, 10 + 28 * line), "The quick brown fox jumps over it", "black", ImageFont.load_default(20))
    return np.asarray(image)


def scenery() -> np.ndarray:
    """Large blobs of colour with some noise, as a photograph has."""
    small = RANDOM.randint(0, 256, (6, 8, 3)).astype(np.uint8)
    large = cv2.resize(small, (400, 300), interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(large + RANDOM.randint(-6, 7, large.shape), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_a_blurred_image_is_less_sharp():
    blurred = np.asarray(Image.fromarray(page_of_text(5)).filter(ImageFilter.GaussianBlur(4)))
    assert measures.sharpness(blurred) < 50 < 500 < measures.sharpness(page_of_text(5))
    assert measures.sharpness(flat((9, 99, 200))) == 0


def test_colourfulness_is_that_of_the_paper():
    assert measures.colourfulness(flat((80, 80, 80))) == 0
    assert measures.colourfulness(flat((255, 0, 0))) == pytest.approx(0.3 * np.hypot(255, 127.5))
    halves = np.concatenate([flat((255, 0, 0)), flat((0, 255, 0))])
    assert measures.colourfulness(halves) == pytest.approx(255 + 0.3 * 127.5)


def test_entropy_in_bits():
    assert measures.entropy(flat((1, 2, 3))) == 0
    assert measures.entropy(np.concatenate([flat((0, 0, 0)), flat((255, 255, 255))])) == pytest.approx(1)
    assert 7 < measures.entropy(NOISE) < 8


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (NOISE, 0),
        (framed(NOISE, 25, 0), 1 - 200 * 300 / (250 * 350)),
        (np.pad(NOISE, ((50, 50), (0, 0), (0, 0)), constant_values=255), 1 / 3),
        (flat((7, 7, 7)), 1),
    ],
    ids=["none", "frame", "letterbox", "one colour"],
)
def test_border(image, expected):
    assert measures.border(image) == pytest.approx(expected)


def test_a_border_of_any_width():
    for width in range(2 * measures.LINES_AT_ONCE + 2):
        expected = 1 - 200 * 300 / ((200 + 2 * width) * (300 + 2 * width))
        assert measures.border(framed(NOISE, width, 0)) == pytest.approx(expected)


def test_a_border_after_jpeg():
    decoded = np.asarray(Image.open(io.BytesIO(jpeg(framed(scenery(), 40, 255), 85))))
    assert measures.border(decoded) == pytest.approx(1 - 300 * 400 / (380 * 480), abs=0.08)  # ringing


def test_blank():
    assert measures.blank(flat((1, 2, 3))) == 1
    assert measures.blank(framed(NOISE, 100, 0)) == pytest.approx(1 - 200 * 300 / (400 * 500), abs=0.01)


def test_text_edges_grow_with_the_text():
    shares = [measures.text_edges(page_of_text(lines)) for lines in (0, 1, 4, 9)]
    assert shares[0] == 0 and shares == sorted(shares) and shares[1] > 0.02 and shares[3] > 0.25
    for other in (scenery(), flat((1, 2, 3)), NOISE):
        assert measures.text_edges(other) < 0.02


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 95, 100])
def test_jpeg_quality(quality):
    assert measures.jpeg_quality(jpeg(scenery(), quality)) == quality


def test_jpeg_quality_of_other_formats():
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "PNG")
    assert measures.jpeg_quality(buffer.getvalue()) is None
    assert measures.jpeg_quality(b"\xff\xd8 no more") is None


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A red cat", [3, 9, 1, 0]),
        ("cat Cat cat 12", [4, 14, 9 / 11, 0.5]),
        ("", [0, 0, 0, 0]),
    ],
)
def test_captions(caption, expected):
    assert list(measures.measure_caption(caption).values()) == pytest.approx(expected)


def test_large_images_are_measured_reduced():
    large = cv2.resize(scenery(), (2000, 1500), interpolation=cv2.INTER_CUBIC)
    assert measures.reduced(large).shape == (384, 512, 3)
    assert tuple(measures.measure_image(large, b"")) + tuple(measures.CAPTION_MEASURES) == measures.NAMES
