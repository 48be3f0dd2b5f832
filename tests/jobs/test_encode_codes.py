"""`encode --codes`: a dataset of codes that were computed elsewhere, whatever file they come in."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs import encode_shards
from models.data.format import read_manifest
from models.data.stream import Stream
from models.errors import UserError
from models.tokenizers.image import load_image_tokenizer, require_no_code
from models.tokenizers.info import CodeShape
from pipeline.inspection import faults
from pipeline.inspection.show import load_image_tokenizer_of

STRIPES = "python:tests.support.stripes:Stripes"
CODES = np.random.RandomState(0).randint(0, 100, (40, 16)).astype(np.int32)
CAPTIONS = [f"A boat with {number} sails" for number in range(40)]
URLS = [f"https://x.org/{number}.jpg" for number in range(40)]


def encode(codes, output, *options):
    return encode_shards.main([f"--codes={codes}", f"--output={output}", "--direct_num_workers=1", *options])


def rejects(dataset):
    ledger = json.loads((dataset / "ledger.json").read_bytes())["sources"]["codes"]
    return ledger["read"], ledger["kept"], ledger["rejected"]


def test_rows_are_pairs_or_rejects_with_a_reason(tmp_path):
    codes: list[list[int] | None] = CODES.tolist()
    captions = [*CAPTIONS]
    codes[3], codes[4], codes[5], captions[6] = CODES[3, :15].tolist(), [100] * 16, None, ""
    codes[8], captions[8] = codes[7], captions[7]  # the same pair once more
    table = {"codes": pa.array(codes, pa.list_(pa.int32())), "caption": captions, "id": range(40)}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    output = tmp_path / "dataset"
    assert encode(tmp_path / "a.parquet", output, "--code-vocabulary=100", "--image-tokenizer=codes:mine") == 0
    expected = {"encode": {"bad_codes": 3, "duplicate_pair": 1}, "select": {"no_caption": 1}}
    assert rejects(output) == (40, 35, expected)
    details = pq.read_table(output / "rejects").filter(pa.compute.field("reason") == "bad_codes")["detail"].to_pylist()
    assert sorted(details) == ["15 codes, expected 16", "code 100 of a vocabulary of 100", "no codes"]
    info = read_manifest(output).image_tokenizer
    assert (info.spec, info.vocabulary, info.shape) == ("codes:mine", 100, CodeShape(sequence=16))
    assert faults.verify(str(output), workers=1) == []
    batch = next(iter(Stream(output, "train", batch_size=30)))
    assert {*map(tuple, batch.codes_BN.tolist())} <= {*map(tuple, CODES.tolist())}

    # A tokenizer that decodes them is given by the one who looks at them.
    manifest = read_manifest(output)
    assert load_image_tokenizer_of(manifest, STRIPES).info.spec == STRIPES
    with pytest.raises(UserError, match=r"expected 100 codes, a sequence of 16 an image; got 1,024 codes, 32 x 32"):
        load_image_tokenizer_of(manifest, "bundled")
    with pytest.raises(UserError, match="has codes that were computed elsewhere, by 'codes:mine'; give --image-tok"):
        require_no_code(info.spec, "manifest.json")
    with pytest.raises(UserError, match="'codes:mine': is known by name alone"):
        load_image_tokenizer(info.spec)


@pytest.fixture(scope="module")
def from_parquet(tmp_path_factory):
    """A dataset of the first 20 rows, with two draws each, of a tokenizer that can be loaded."""
    folder = tmp_path_factory.mktemp("codes")
    draws = pa.array([[*row, *row[::-1]] for row in CODES[:20]], pa.list_(pa.int32()))
    table = pa.table({"codes": draws, "text": CAPTIONS[:20], "url": URLS[:20]})
    pq.write_table(table, folder / "a.parquet", row_group_size=3)
    assert encode(folder / "a.parquet", folder / "dataset", f"--image-tokenizer={STRIPES}", "--draws=2") == 0
    return folder / "dataset"


def test_the_same_rows_of_an_array_are_the_same_dataset(from_parquet, tmp_path):
    np.save(tmp_path / "b.npy", np.stack([CODES, CODES[:, ::-1]], axis=1).astype(np.uint8)[:20])
    rows = zip(URLS[:20], CAPTIONS[:20], strict=True)
    (tmp_path / "b.csv").write_text("url,caption\n" + "".join(f"{url},{caption}\n" for url, caption in rows))
    options = (f"--image-tokenizer={STRIPES}", "--draws=2")
    for part in ("1/2", "2/2"):
        assert encode(tmp_path / "b.npy", tmp_path / "dataset", f"--part={part}", *options) == 0
    manifests = [read_manifest(folder) for folder in (from_parquet, tmp_path / "dataset")]
    assert manifests[0].shards == manifests[1].shards and manifests[0].pairs("train") + manifests[0].pairs("val") == 20
    assert manifests[0].image_tokenizer == manifests[1].image_tokenizer == load_image_tokenizer(STRIPES).info


def test_rows_are_added_to_a_dataset(from_parquet, tmp_path):
    np.save(tmp_path / "b.npy", np.stack([CODES, CODES[:, ::-1]], axis=1))
    pq.write_table(pa.table({"caption": CAPTIONS, "url": URLS}), tmp_path / "b.parquet")
    options = (f"--image-tokenizer={STRIPES}", "--draws=2", f"--add-to={from_parquet}")
    assert encode(tmp_path / "b.npy", tmp_path / "dataset", *options) == 0
    assert rejects(tmp_path / "dataset") == (40, 40, {})
    with pytest.raises(UserError, match="made with another image tokenizer"):
        encode(tmp_path / "b.npy", tmp_path / "other", "--draws=2", f"--add-to={from_parquet}")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--codes=a.parquet", "--near-duplicates"], "--near-duplicates: is of images; leave it out with --codes"),
        (["--codes=a.parquet", "--min-side=3"], "--min-side: is of images"),
        (["--images=a.tar", "--code-shape=4x4"], "--code-shape: is of --codes; leave it out with --images"),
        (["--codes=a.parquet", "--images=a.tar"], "not allowed with argument"),
        ([], "one of the arguments --images --codes is required"),
        (["--codes=a.parquet", "--code-shape=4x"], "--code-shape 4x: give 16x16"),
        (["--codes=a.parquet"], "no file matches a.parquet"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, told):
    with pytest.raises(UserError, match=told):
        encode_shards.main([f"--output={tmp_path / 'out'}", *options])


def test_options_that_say_otherwise_than_the_tokenizer(tmp_path):
    np.save(tmp_path / "a.npy", CODES)
    (tmp_path / "a.txt").write_text("\n".join(CAPTIONS))
    with pytest.raises(UserError, match=r"--code-shape 4 x 4: python:.*:Stripes has a sequence of 16; leave"):
        encode(tmp_path / "a.npy", tmp_path / "out", f"--image-tokenizer={STRIPES}", "--code-shape=4x4")
    with pytest.raises(UserError, match=r"a.npy: 16 codes a row, expected 25 \(5 x 5\)"):
        encode(tmp_path / "a.npy", tmp_path / "out", "--code-shape=5x5")
