"""Averages by area are those of OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.images import area_resize as module
from pipeline.images.area_resize import area_resize


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.data())
def test_equal_to_opencvs(width, height, data):
    rgb = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    size = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    found = area_resize(rgb, *size)
    assert found.dtype == np.uint8
    difference = np.abs(found.astype(int) - cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    assert difference.max() <= 1  # where an average lies half way between two numbers
    assert (difference > 0).mean() < 0.05 or difference.size < 100


def test_strips_join_without_a_seam(monkeypatch):
    rgb = np.random.default_rng(0).integers(0, 256, (431, 17, 3)).astype(np.uint8)
    found = area_resize(rgb, 11, 3 * module.STRIP_ROWS + 1)
    monkeypatch.setattr(module, "STRIP_ROWS", rgb.shape[0])
    module._strips.cache_clear()
    assert (area_resize(rgb, 11, found.shape[0]) == found).all()
    module._strips.cache_clear()


@pytest.mark.parametrize("size", [(256, 171), (300, 200), (150, 100), (299, 1), (1, 199)])
def test_one_colour_stays_one_colour(size):
    assert (area_resize(np.full((200, 300, 3), (1, 128, 255), np.uint8), *size) == (1, 128, 255)).all()


def test_large_images_are_left_to_opencv(monkeypatch):
    monkeypatch.setattr(module, "_averages", None)
    assert area_resize(np.zeros((1100, 1000, 3), np.uint8), 300, 333).shape == (333, 300, 3)
