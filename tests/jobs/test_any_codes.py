"""The whole way with codes that version 1 can't hold: encoded, verified, streamed, trained on, drawn from, repacked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beam_jobs import encode_shards
from models.data.format import read_manifest, read_token_shard
from models.data.stream import Stream
from models.errors import UserError
from models.sampling import generate
from models.tokenizers.image import load_image_tokenizer
from models.tokenizers.info import CodeShape, ImageTokenizerInfo, square
from models.tokenizers.text import BUNDLED_BPE
from models.training.train import main as train
from models.transformer.model import SIZES
from pipeline.inspection import faults
from tests.support.lookup_free import write_files


@pytest.fixture(params=["2^18 codes", "a sequence"])
def tokenizer(request, tmp_path) -> tuple[str, int, CodeShape]:
    """SPEC, vocabulary and shape of codes."""
    if request.param == "2^18 codes":
        return f"{write_files(tmp_path)}@16", 1 << 18, square(4)
    return "python:tests.support.stripes:Stripes", 100, CodeShape(sequence=16)


def test_from_images_to_drawn_images(tokenizer, images, tmp_path, monkeypatch, capsys):
    spec, vocabulary, shape = tokenizer
    dataset, run = tmp_path / "dataset", tmp_path / "run"
    encode(spec, images, dataset)
    manifest = read_manifest(dataset)
    expected = load_image_tokenizer(spec).info
    assert manifest.image_tokenizer == expected
    assert (expected.vocabulary, expected.shape) == (vocabulary, shape)
    assert json.loads((dataset / "manifest.json").read_bytes())["version"] == 2
    assert faults.verify(str(dataset), workers=1) == []
    check_stream(dataset, expected)
    monkeypatch.setitem(SIZES, "tiny", (3, 2, 32))
    options = ["--size=tiny", "--steps=2", "--batch-size=2", "--validate-every=2", "--threads=1"]
    assert train([f"--dataset={dataset}", f"--output={run}", *options]) in (0, None)
    model = json.loads((run / "config.json").read_bytes())["model"]
    assert (model["image_vocabulary"], model["grid"]) == (vocabulary, shape.columns)
    prompt = ["--prompt=a boat", "--count=1", f"--output={tmp_path / 'drawn'}", "--threads=1"]
    if spec.startswith("python:"):
        with pytest.raises(UserError, match="names code as its image tokenizer, 'python:"):
            generate.main([f"--checkpoint={run}", *prompt])
        prompt.append(f"--image-tokenizer={spec}")
    assert generate.main([f"--checkpoint={run}", *prompt]) == 0
    assert Image.open(tmp_path / "drawn" / "0000.png").size == (expected.image_size,) * 2


def encode(spec: str, images: Path, output: Path) -> None:
    options = [f"--image-tokenizer={spec}", f"--text-tokenizer={BUNDLED_BPE}", "--direct_num_workers=1"]
    assert encode_shards.main([f"--images={images}/0000[0-2].tar", f"--output={output}", *options]) == 0


def check_stream(dataset: Path, info: ImageTokenizerInfo) -> None:
    """A batch has the codes of the shards, which are not all small and not all alike."""
    stored = {
        sample.key: sample.codes[0]
        for path in dataset.glob("train/*.tar")
        for sample in read_token_shard(path, info.code_type)
    }
    batch = next(iter(Stream(dataset, "train", batch_size=2)))
    assert batch.codes_BN.shape == (2, info.shape.count)
    assert np.array_equal(batch.codes_BN.numpy(), np.stack([stored[key] for key in batch.keys]))
    assert batch.codes_BN.max() > info.vocabulary // 4 and len(batch.codes_BN.unique()) > 3
