"""`pairmill score`: measures and models over fetched images, the same bytes for any number of workers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from beam_jobs import fetch_images, score_images
from models.errors import UserError
from models.scoring import measures
from models.scoring.embedder import Embedder
from models.scoring.model_folder import load_model, model_files
from pipeline.fetch import stored_shards
from pipeline.images.fetched import FetchedImage
from pipeline.images.validate import ImageConfig
from pipeline.records import Pair
from pipeline.scores import scorer
from pipeline.scores.score_files import open_scores
from tests.support.contrastive import write_model
from tests.support.fetching import pair, write_pairs
from tests.support.narrowing import instances
from tests.support.paths import files_of


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "clip")


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    save_file(torch.nn.Linear(16, 1).state_dict(), path)
    return path


def score(images: Path | str, output: Path, *arguments: object, workers: int = 1) -> Path:
    options = [f"--images={images}", f"--output={output}", f"--direct_num_workers={workers}"]
    assert score_images.main([*map(str, arguments), *options]) == 0
    return output


@pytest.fixture(scope="module")
def scored(images, model, head, tmp_path_factory) -> Path:
    """Of 30 images, one of them broken."""
    output = tmp_path_factory.mktemp("scored") / "out"
    return score(images, output, "--model", model, "--head", f"aesthetic={head}", "--rows-per-file", 10)


def test_each_pair_has_its_scores(scored, images, model, head):
    rows = {row["key"]: row for row in pq.read_table(scored / "scores").to_pylist()}
    embeddings = {row["key"]: row for row in pq.read_table(scored / "embeddings").to_pylist()}
    assert len(rows) == 29 and rows.keys() == embeddings.keys()
    path = f"{images}/00002.tar"
    pairs = [row for row in stored_shards.list_rows(path) if isinstance(row, Pair)]
    embedder = Embedder(load_model(model_files(model)))
    for image in instances(stored_shards.read_images(path, pairs, ImageConfig()), FetchedImage):
        row, embedding = rows[image.pair.key], embeddings[image.pair.key]
        expected = embedder.embed([embedder.prepare(image.rgb_HWC, image.pair.caption)])
        assert embedding["image"] == expected.image_BE[0].tolist() and embedding["text"] == expected.text_BE[0].tolist()
        assert row["clip"] == pytest.approx(np.dot(embedding["image"], embedding["text"]), abs=1e-6)
        assert row["sharpness"] == pytest.approx(measures.sharpness(image.rgb_HWC))
        assert row["words"] == 8 and row["jpeg_quality"] is None and row["aesthetic"] is not None


def test_the_account_is_exact(scored):
    [rows] = json.loads((scored / "ledger.json").read_text())["sources"].values()
    assert rows == {"read": 30, "kept": 29, "rejected": {"fetch": {"not_an_image": 1}}}
    assert [row["reason"] for row in pq.read_table(scored / "rejects").to_pylist()] == ["not_an_image"]


def test_files_hold_ranges_of_keys(scored):
    files = sorted((scored / "scores").iterdir())
    assert [path.name for path in files] == [f"0000{number}-of-00003.parquet" for number in range(3)]
    keys = [pq.read_table(path, partitioning=None)["key"].to_pylist() for path in files]
    every = [key for each in keys for key in each]
    assert every == sorted(every)
    assert all(int(key[:16], 16) * 3 >> 64 == number for number, each in enumerate(keys) for key in each)
    scores = open_scores(str(scored))
    assert scores.names == (*measures.NAMES, "clip", "aesthetic")
    assert scores.read(keys[0][-1], keys[2][0])["key"].to_pylist() == [keys[0][-1], *keys[1], keys[2][0]]


@pytest.mark.parametrize("workers", [2, 4])
def test_bytes_do_not_depend_on_workers_or_repeated_bundles(scored, images, model, head, workers, tmp_path):
    options = ["--model", model, "--head", f"aesthetic={head}", "--rows-per-file", 10]
    again = score(images, tmp_path / "out", *options, "--direct_runner_bundle_repeat=1", workers=workers)
    assert files_of(again) == files_of(scored)


def test_parts_make_the_same_files(scored, images, model, head, tmp_path):
    options = ["--model", model, "--head", f"aesthetic={head}", "--rows-per-file", 10]
    score(images, tmp_path / "out", *options, "--part=2/2")
    assert not (tmp_path / "out" / "ledger.json").exists()
    assert files_of(score(images, tmp_path / "out", *options, "--part=1/2")) == files_of(scored)


def test_without_a_model(images, tmp_path):
    output = score(f"{images}/00000.tar", tmp_path / "out")
    assert pq.read_table(output / "scores").schema.names == ["key", *measures.NAMES]
    assert not (output / "embeddings").exists()


def test_a_key_that_comes_twice_is_rejected(images, tmp_path):
    for name in ("00000", "00001"):
        for suffix in ("tar", "parquet"):
            shutil.copy(images / f"00000.{suffix}", tmp_path / f"{name}.{suffix}")
    output = score(f"{tmp_path}/*.tar", tmp_path / "out")
    [rows] = json.loads((output / "ledger.json").read_text())["sources"].values()
    assert rows == {"read": 10, "kept": 5, "rejected": {"select": {"duplicate_url": 5}}}


def test_a_resumed_job_scores_what_is_missing(images, scored, model, head, tmp_path, monkeypatch):
    options = ["--model", model, "--head", f"aesthetic={head}", "--rows-per-file", 10]
    seen, measure = [], scorer._measure

    def failing(image):
        seen.append(image.pair.key)
        if len(seen) == 17:
            raise KeyboardInterrupt
        return measure(image)

    monkeypatch.setattr(scorer, "_measure", failing)
    with pytest.raises(BaseException):  # noqa: B017 (as the runner hands it on)
        score(images, tmp_path / "out", *options)
    assert not (tmp_path / "out" / "ledger.json").exists() and not (tmp_path / "out" / "scores.json").exists()
    again = score(images, tmp_path / "out", *options)
    assert len(seen) < 17 + 29 and files_of(again) == files_of(scored)


def test_what_can_not_be_scored_is_one_line(images, model, head, tmp_path):
    for arguments, said in (
        (["--model", tmp_path / "none"], "--model .*: there is no such folder"),
        (["--head", f"aesthetic={head}"], "--head aesthetic: scores the embeddings of a model; name one by --model"),
        (["--model", model, "--head", f"sharpness={head}"], "--head sharpness: another score has this name"),
        (["--model", model, "--head", f"a={head}", "--head", f"a={head}"], "--head a: another score has this name"),
        (["--model", model, "--head", str(head)], "give NAME=FILE"),
        (["--model", model, "--head", f"a={tmp_path}/no.onnx"], "--head .*no.onnx: there is no such file"),
    ):
        with pytest.raises(UserError, match=said):
            score(images, tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_over_the_output_of_fetch(server, fetch_options, tmp_path):
    """Its rejects and its count of rows read come along."""
    names = ("ajantacave.jpg", "antelope.png", "none.jpg")
    write_pairs(tmp_path / "pairs", [pair(f"{server.url}/images/{name}") for name in names])
    fetched = tmp_path / "fetched"
    arguments = [f"--pairs={tmp_path / 'pairs'}", f"--output={fetched}", "--direct_num_workers=1", *fetch_options]
    assert fetch_images.main(arguments) == 0
    output = score(fetched, tmp_path / "out")
    rows = {row["key"]: row for row in pq.read_table(output / "scores").to_pylist()}
    assert rows.keys() == {pair(f"{server.url}/images/{name}").key for name in names[:2]}
    assert rows[pair(f"{server.url}/images/ajantacave.jpg").key]["jpeg_quality"] > 50
    ledger = json.loads((output / "ledger.json").read_text())["sources"]
    assert ledger == {"test": {"read": 3, "kept": 2, "rejected": {"fetch": {"http_404": 1}}}}
    assert [row["reason"] for row in pq.read_table(output / "rejects").to_pylist()] == ["http_404"]
