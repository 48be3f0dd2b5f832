"""Version 2 of a dataset's format: any shape of codes, of a vocabulary of 32 bits, from the manifest to a batch."""

from __future__ import annotations

import json

import numpy as np
import pytest

from models.data.format import read_manifest, read_token_shard
from models.data.stream import Stream
from models.errors import UserError
from models.tokenizers.info import UINT16, UINT32, CodeShape, ImageTokenizerInfo, square
from tests.support.datasets import write_dataset, write_manifest

SHAPES = {
    "grid": (CodeShape(grid=(2, 3)), 6),
    "sequence": (CodeShape(sequence=5), 5),
    "scales": (CodeShape(scales=((1, 1), (2, 2), (3, 3))), 14),
}


def info(shape: CodeShape, vocabulary: int = 32) -> ImageTokenizerInfo:
    return ImageTokenizerInfo("none", "0" * 64, vocabulary, shape, image_size=32)


@pytest.mark.parametrize(("shape", "count"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("vocabulary", [32, 1 << 18])
def test_manifest_shards_and_stream(tmp_path, shape, count, vocabulary):
    image = info(shape, vocabulary)
    codes = np.random.default_rng(0).integers(0, vocabulary, (12, 2, count))
    written = write_dataset(tmp_path, (12,), (), image=image, draws=2, codes=lambda i: codes[i])
    manifest = read_manifest(tmp_path)
    assert manifest == written and manifest.image_tokenizer == image
    body = json.loads((tmp_path / "manifest.json").read_bytes())
    assert body["version"] == 2 and body["image_tokenizer"]["shape"] == json.loads(json.dumps(shape.to_json()))
    assert body["image_tokenizer"]["code_type"] == ("uint16" if vocabulary == 32 else "uint32")
    samples = {s.key: s for s in read_token_shard(tmp_path / manifest.shards[0].path, image.code_type)}
    stored = np.stack([sample.codes for sample in samples.values()])
    assert stored.shape == codes.shape and np.array_equal(stored, codes)
    batches = iter(Stream(tmp_path, "train", batch_size=4))
    for batch in (next(batches) for _ in range(3)):  # the first epoch: the first draw
        expected = np.stack([samples[key].codes[0] for key in batch.keys])
        assert np.array_equal(batch.codes_BN.numpy(), expected)


def test_what_version_1_can_say_is_version_1(tmp_path):
    manifest = write_dataset(tmp_path, (4,), ())
    body = json.loads((tmp_path / "manifest.json").read_bytes())
    assert body["version"] == 1 and body["image_tokenizer"]["grid"] == 4
    assert not {"shape", "code_type"} & body["image_tokenizer"].keys()
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize(
    ("image", "is_version_1", "code_type"),
    [
        (info(square(4), 1 << 16), True, UINT16),
        (info(square(4), (1 << 16) + 1), False, UINT32),
        (info(square(4), 1 << 32), False, UINT32),
        (info(CodeShape(grid=(4, 5))), False, UINT16),
        (info(CodeShape(sequence=16)), False, UINT16),
        (info(CodeShape(scales=((4, 4),))), False, UINT16),
    ],
)
def test_version_and_type_follow_from_shape_and_vocabulary(image, is_version_1, code_type):
    assert image.fits_version_1 == is_version_1 and image.code_type == code_type


def test_parts_and_words_of_a_shape():
    grid, sequence, scales = (shape for shape, _ in SHAPES.values())
    assert [(s.rows, s.columns, s.dimensions) for s in (grid, sequence, scales)] == [
        (2, 3, (2, 3)),
        (1, 5, (5,)),
        (1, 14, (14,)),
    ]
    assert [str(s) for s in (grid, sequence, scales)] == ["2 x 3", "a sequence of 5", "1 x 1 + 2 x 2 + 3 x 3"]


@pytest.mark.parametrize(
    "change",
    [
        {"shape": {}},
        {"shape": {"grid": [4, 4], "sequence": 16}},
        {"shape": {"sequence": 0}},
        {"shape": {"scales": []}},
        {"shape": {"grid": [4]}},
        {"vocabulary": (1 << 32) + 1},
        {"vocabulary": 0},
    ],
    ids=str,
)
def test_a_manifest_whose_codes_make_no_sense(tmp_path, monkeypatch, change):
    manifest = write_dataset(tmp_path, (4,), (), image=info(CodeShape(sequence=16)))
    fields = manifest.image_tokenizer.to_json() | change
    monkeypatch.setattr(ImageTokenizerInfo, "to_json", lambda self: fields)
    write_manifest(tmp_path, manifest)
    with pytest.raises(UserError, match=r"is not as pairmill writes it: .*image_tokenizer"):
        read_manifest(tmp_path)


def test_codes_of_another_number_or_outside_the_vocabulary_are_refused(tmp_path):
    image = info(CodeShape(sequence=5), 1 << 18)
    write_dataset(tmp_path / "short", (4,), (), image=image, codes=lambda i: np.zeros((1, 4), int))
    with pytest.raises(UserError, match="has 4 codes, not 1 x 5"):
        next(iter(Stream(tmp_path / "short", "train", batch_size=2)))
    write_dataset(tmp_path / "outside", (4,), (), image=image, codes=lambda i: np.full((1, 5), 1 << 18))
    with pytest.raises(UserError, match="has code 262144, but the vocabulary has 262144"):
        next(iter(Stream(tmp_path / "outside", "train", batch_size=2)))
