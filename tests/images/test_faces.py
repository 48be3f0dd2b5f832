"""Faces are found at any scale, and what is left of them are a few colours."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import UserError
from pipeline.images.faces import CELLS, FaceDetector, blurred
from tests.support.face_model import write_face_model


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> FaceDetector:
    return FaceDetector(write_face_model(tmp_path_factory.mktemp("faces") / "faces.onnx"))


def image(height: int, width: int, scale: int = 1) -> np.ndarray:
    """Grey noise with a red square at (64, 96) of 32 px, all of it times `scale`."""
    small_HWC = np.random.default_rng(0).integers(90, 110, (height, width, 3), np.uint8)
    small_HWC[64:96, 96:128] = 255, 0, 0
    return small_HWC.repeat(scale, 0).repeat(scale, 1)


@pytest.mark.parametrize(("height", "width", "scale"), [(160, 200, 1), (480, 640, 1), (480, 640, 3)])
def test_finds_a_face_with_padding(detector, height, width, scale):
    boxes = detector.find(image(height, width, scale))
    assert [tuple(side // scale for side in box) for box in boxes] == [(88, 56, 136, 104)]


def test_finds_none(detector):
    assert detector.find(np.full((1, 2000, 3), 100, np.uint8)) == []


def test_a_face_at_the_edge_is_cut(detector):
    rgb_HWC = np.zeros((100, 70, 3), np.uint8)
    rgb_HWC[:32, :32, 0] = 255
    assert detector.find(rgb_HWC) == [(0, 0, 40, 40)]


def test_blurs_the_boxes_alone(detector):
    before = image(160, 200)
    noise = np.random.default_rng(1).integers(0, 2, (48, 48, 1), np.uint8) * 255
    before[56:104, 88:136] = noise
    after = blurred(before, [(box := detector.find(image(160, 200))[0])])
    assert before[60:100, 90:130].std() > 100 > 10 * after[box.top : box.bottom, box.left : box.right].std()
    outside = np.ones(before.shape[:2], bool)
    outside[box.top : box.bottom, box.left : box.right] = False
    assert (before[outside] == after[outside]).all() and CELLS < 8


def test_a_wrong_model_is_one_line(tmp_path):
    with pytest.raises(UserError, match="there is no such file; give the ONNX file of YuNet"):
        FaceDetector(tmp_path / "faces.onnx")
    whole = write_face_model(tmp_path / "faces.onnx").read_bytes()
    for damaged in (b"", b"no model", whole[: len(whole) // 2]):
        (tmp_path / "faces.onnx").write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged or no such model; give"):
            FaceDetector(tmp_path / "faces.onnx")
