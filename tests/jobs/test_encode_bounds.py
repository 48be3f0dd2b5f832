"""`pairmill encode --scores`: pairs out of bounds are rejected before they are encoded, each with reason and value."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from beam_jobs import build_dataset, encode_shards, score_images
from models.data.format import read_manifest
from models.errors import UserError
from pipeline.fetch import stored_shards
from pipeline.inspection.faults import verify
from pipeline.records import Pair
from tests.support.contrastive import write_model
from tests.support.paths import files_of
from tests.support.scores import write_scores


@pytest.fixture(scope="module")
def keys(images) -> list[str]:
    paths = stored_shards.find_image_shards(f"{images}/0000[0-2].tar")
    return sorted(row.key for path in paths for row in stored_shards.list_rows(path) if isinstance(row, Pair))


@pytest.fixture(scope="module")
def scores(keys, tmp_path_factory) -> Path:
    """The pair at place i of the sorted keys has a clip of i / 100 and a sharpness of 10 i; the last one has none."""
    rows = {key: {"clip": i / 100, "sharpness": 10.0 * i} for i, key in enumerate(keys[:-1])}
    return write_scores(tmp_path_factory.mktemp("scores") / "scores", rows)


@pytest.fixture
def encode(images, tiny_dvae):
    def run(output: Path, *arguments: object, workers: int = 1) -> Path:
        options = [
            f"--images={images}/0000[0-2].tar",
            f"--image-tokenizer={tiny_dvae}",
            f"--direct_num_workers={workers}",
        ]
        assert encode_shards.main([*options, f"--output={output}", *map(str, arguments)]) == 0
        assert verify(str(output), 1) == []
        return output

    return run


def kept(output: Path) -> list[str]:
    return sorted(pq.read_table(output / "index", columns=["key"])["key"].to_pylist())


def details(output: Path, reason: str) -> dict[str, str]:
    return {
        row["key"]: row["detail"] for row in pq.read_table(output / "rejects").to_pylist() if row["reason"] == reason
    }


def test_bounds(encode, scores, keys, tmp_path):
    output = encode(tmp_path / "out", "--scores", scores, "--min-clip", 0.05, "--max-score", "sharpness=100")
    encodable = set(encoded_without_bounds(keys, output))
    assert kept(output) == [key for key in keys[5:11] if key in encodable]
    assert details(output, "low_similarity")[keys[4]] == "clip 0.04, below 0.05"
    assert details(output, "low_quality")[keys[11]] == "sharpness 110, above 100"
    assert details(output, "low_similarity")[keys[-1]] == "clip missing"
    [account] = json.loads((output / "ledger.json").read_text())["sources"].values()
    assert account["read"] == 15 == account["kept"] + sum(sum(each.values()) for each in account["rejected"].values())
    settings = read_manifest(output).settings["scores"]
    assert settings["min"] == {"clip": 0.05} and settings["max"] == {"sharpness": 100} and settings["keep_top"] == {}


def encoded_without_bounds(keys: list[str], output: Path) -> list[str]:
    """All keys but that of the broken image."""
    broken = {row["key"] for row in pq.read_table(output / "rejects").to_pylist() if row["reason"] == "not_an_image"}
    return [key for key in keys if key not in broken]


def test_the_best_share_with_any_number_of_workers(encode, scores, keys, tmp_path):
    options = ["--scores", scores, "--keep-top", 0.3]
    one = encode(tmp_path / "one", *options)
    assert set(kept(one)) == set(encoded_without_bounds(keys, one)) & set(keys[10:14])
    again = encode(tmp_path / "two", *options, workers=2)
    assert files_of(one) == files_of(again)


def test_scores_within_encode_are_those_of_score(encode, images, tmp_path):
    """The same pairs and rejects as score followed by encode, and each image is decoded once."""
    model, head = write_model(tmp_path / "clip"), tmp_path / "head.safetensors"
    save_file(torch.nn.Linear(16, 1).state_dict(), head)
    score = ["--model", model, "--head", f"aesthetic={head}", "--output", tmp_path / "scores", "--direct_num_workers=1"]
    assert score_images.main([f"--images={images}/0000[0-2].tar", *map(str, score)]) == 0
    rows = [row for row in pq.read_table(tmp_path / "scores" / "scores").to_pylist()]
    middle = {name: sorted(row[name] for row in rows)[len(rows) // 3] for name in ("clip", "aesthetic", "sharpness")}
    bounds = ["--min-clip", middle["clip"], "--max-score", f"sharpness={middle['sharpness'] * 2}"]
    bounds += ["--min-score", f"aesthetic={middle['aesthetic']}"]
    after = encode(tmp_path / "after", "--scores", tmp_path / "scores", *bounds)
    within = encode(tmp_path / "within", "--score-model", model, "--score-head", f"aesthetic={head}", *bounds)
    assert 0 < len(kept(within)) < len(rows)
    one, other = files_of(after), files_of(within)
    assert {name: data for name, data in one.items() if name.endswith(".tar") or name.startswith("index/")} == {
        name: data for name, data in other.items() if name.endswith(".tar") or name.startswith("index/")
    }
    for reason in ("low_similarity", "low_quality"):  # the broken image has no score in the folder
        assert details(within, reason).items() <= details(after, reason).items()
    assert sum(len(details(within, reason)) for reason in ("low_similarity", "low_quality")) == len(rows) - len(
        kept(within)
    )
    settings = read_manifest(within).settings["scores"]
    assert settings["heads"].keys() == {"aesthetic"} and settings["min"]["clip"] == middle["clip"]


def test_build_rejects_by_scores_that_it_computes(images, tiny_dvae, tmp_path):
    output = tmp_path / "out"
    command = [f"--source=img2dataset={images}/0000[0-2].tar", f"--image-tokenizer={tiny_dvae}", f"--output={output}"]
    assert build_dataset.main([*command, "--min-score=sharpness=1e9", "--direct_num_workers=1"]) == 0
    assert all(text.endswith(", below 1e+09") for text in details(output, "low_quality").values())
    [account] = json.loads((output / "ledger.json").read_text())["sources"].values()
    assert account["kept"] == 0 and account["rejected"]["encode"] == {"low_quality": 14}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--min-clip=0.3"], "bound on clip: .*; name a model by --score-model"),
        (["--min-score=beauty=1"], "bound on beauty: the scores are sharpness, .*; choose another"),
        (["--keep-top=0.3"], "--keep-top: takes the scores of all pairs; run `pairmill score`, then add --scores DIR"),
        (["--score-model=/nowhere"], "--score-model, --score-head: give a bound"),
        (["--score-model=/nowhere", "--min-clip=0.3"], "^--score-model /nowhere: there is no such folder"),
        (["--score-head=nsfw=/nowhere", "--max-score=nsfw=1"], "--score-head nsfw: takes a model"),
        (["--scores=SCORES", "--min-clip=0.3", "--score-model=/nowhere"], "leave out --score-model and --score-head"),
        (["--scores=SCORES"], "give a bound, such as --min-clip 0.28 or --keep-top 0.3"),
        (["--scores=SCORES", "--min-score=nsfw=1"], "has no score nsfw; it has clip, sharpness"),
        (["--scores=SCORES", "--min-score=clip"], "--min-score clip: give NAME=X"),
        (["--scores=SCORES", "--keep-top=1.5"], "--keep-top 1.5: give a share above 0 and below 1"),
        (["--scores=SCORES", "--keep-top=clip=all"], "--keep-top all: give a share above 0 and below 1"),
        (["--scores=/nowhere", "--min-clip=0.3"], "no scores.json there; run `pairmill score` to its end first"),
    ],
)
def test_wrong_bounds_are_one_line(encode, scores, tmp_path, arguments, said):
    with pytest.raises(UserError, match=said):
        encode(tmp_path / "out", *(text.replace("SCORES", str(scores)) for text in arguments))
    assert not (tmp_path / "out").exists()
