"""`--faces`: faces are blurred before images are encoded, or these images are rejected."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from beam_jobs import build_dataset, encode_shards
from models.data.format import read_manifest, read_token_shard
from models.errors import UserError
from pipeline.fetch import stored_shards
from pipeline.images.fetched import FetchedImage
from pipeline.images.validate import ImageConfig
from pipeline.records import Pair
from pipeline.scores.image_filter import FaceConfig, ImageFilter, ImageFilterConfig
from tests.support.face_model import write_face_model
from tests.support.narrowing import instances
from tests.support.paths import files_of

WITH_FACE, WITHOUT = "a face in a field of checks", "a field of checks alone"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """A tar of an image with a face and one without."""
    path = tmp_path_factory.mktemp("pairs") / "00000.tar"
    with tarfile.open(path, "w") as tar:
        for number, caption in enumerate((WITH_FACE, WITHOUT)):
            checks_HW1 = np.random.default_rng(number).integers(0, 2, (32, 32, 1), np.uint8).repeat(8, 0).repeat(8, 1)
            rgb_HWC = np.broadcast_to(checks_HW1 * 255, (256, 256, 3)).copy()
            if caption == WITH_FACE:
                rgb_HWC[96:160, 96:160] = 255, 0, 0
            png = io.BytesIO()
            Image.fromarray(rgb_HWC).save(png, "PNG")
            for name, data in (("png", png.getvalue()), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{number:09d}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_face_model(tmp_path_factory.mktemp("model") / "faces.onnx")


@pytest.fixture
def encode(pairs, tiny_dvae, tmp_path):
    def run(name: str, *arguments: str, workers: int = 1) -> Path:
        options = [f"--images={pairs}", f"--image-tokenizer={tiny_dvae}", f"--output={tmp_path / name}"]
        assert encode_shards.main([*options, f"--direct_num_workers={workers}", *arguments]) == 0
        return tmp_path / name

    return run


def captions(output: Path) -> set[str]:
    return set(pq.read_table(output / "index", columns=["caption"])["caption"].to_pylist())


def codes(output: Path) -> dict[str, bytes]:
    """Image codes by captions."""
    manifest = read_manifest(output)
    code_type = manifest.image_tokenizer.code_type
    samples = [sample for shard in manifest.shards for sample in read_token_shard(output / shard.path, code_type)]
    rows = pq.read_table(output / "index", columns=["key", "caption"]).to_pylist()
    captions_by_key = {row["key"]: row["caption"] for row in rows}
    return {captions_by_key[sample.key]: sample.codes.tobytes() for sample in samples}


def test_blurs_the_images_that_are_encoded(pairs, model, tmp_path):
    rows = [row for row in stored_shards.list_rows(str(pairs)) if isinstance(row, Pair)]
    before = instances(stored_shards.read_images(str(pairs), rows, ImageConfig()), FetchedImage)
    image_filter = ImageFilter(ImageFilterConfig(faces=FaceConfig("blur", str(model))), str(tmp_path))
    after = instances(image_filter.filter(before), FetchedImage)
    changed = [(one.rgb_HWC != other.rgb_HWC).any() for one, other in zip(before, after, strict=True)]
    assert changed == [True, False] and [row.pair.caption for row in after] == [WITH_FACE, WITHOUT]
    assert (after[0].rgb_HWC[:80, :80] == before[0].rgb_HWC[:80, :80]).all()


def test_blur_changes_the_codes_of_faces_alone(encode, model, capsys):
    before = codes(encode("before"))
    assert "blurred" not in capsys.readouterr().out
    after = codes(encode("after", "--faces=blur", f"--face-model={model}"))
    assert "encode: this run, images with blurred faces: 1\n" in capsys.readouterr().out
    assert before.keys() == after.keys() == {WITH_FACE, WITHOUT}
    assert before[WITHOUT] == after[WITHOUT] and before[WITH_FACE] != after[WITH_FACE]


def test_blur_with_any_number_of_workers(encode, model):
    options = ["--faces=blur", f"--face-model={model}"]
    one = encode("one", *options)
    assert files_of(one) == files_of(encode("two", *options, workers=2))
    settings = read_manifest(one).settings["faces"]
    assert settings["action"] == "blur" and len(settings["model"]) == 64


@pytest.mark.parametrize("job", ["encode", "build"])
def test_reject(encode, pairs, tiny_dvae, model, tmp_path, job):
    options = ["--faces=reject", f"--face-model={model}"]
    if job == "encode":
        output = encode("out", *options)
    else:
        output = tmp_path / "out"
        given = [f"--source=img2dataset={pairs}", f"--image-tokenizer={tiny_dvae}", f"--output={output}"]
        assert build_dataset.main([*given, *options, "--direct_num_workers=1"]) == 0
    assert captions(output) == {WITHOUT}
    [row] = pq.read_table(output / "rejects").to_pylist()
    assert row["reason"] == "face" and row["detail"].endswith(" found")
    [account] = json.loads((output / "ledger.json").read_text())["sources"].values()
    assert account["read"] == 2 and account["kept"] == 1 and account["rejected"]["encode"] == {"face": 1}


@pytest.mark.parametrize("arguments", [["--faces=blur"], ["--face-model=/nowhere"]])
def test_one_option_without_the_other(encode, arguments):
    with pytest.raises(UserError, match="--faces and --face-model go together"):
        encode("out", *arguments)
