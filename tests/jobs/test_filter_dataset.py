"""`pairmill filter`: a dataset of the pairs for which a condition holds, nothing encoded again."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from beam_jobs import filter_dataset
from models.errors import UserError
from pipeline.inspection.faults import verify
from pipeline.records import EncodedPair
from tests.support.paths import files_of
from tests.support.records import write_records
from tests.support.scores import write_scores

pytest.importorskip("duckdb", reason="needs the extra `scores`")


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> tuple[Path, list[EncodedPair]]:
    """A dataset of 60 pairs, two of a kind, with rejects of its own."""
    base = tmp_path_factory.mktemp("filter") / "dataset"
    return base, write_records(base, 60, draws=2)


@pytest.fixture(scope="module")
def scores(records, tmp_path_factory) -> Path:
    """Of all pairs but the first; the pair of row i has i / 100."""
    return write_scores(
        tmp_path_factory.mktemp("scores"), {record.key: {"clip": record.row / 100} for record in records[1][1:]}
    )


def run_filter(dataset: Path, output: Path, *arguments: object, workers: int = 1) -> Path:
    options = [f"--output={output}", f"--direct_num_workers={workers}"]
    assert filter_dataset.main([str(dataset), *map(str, arguments), *options]) == 0
    assert verify(str(output), 1) == []
    return output


def rejects(output: Path) -> dict[str, str]:
    rows = pq.read_table(output / "rejects").to_pylist()
    return {row["key"]: row["detail"] for row in rows if row["reason"] == "filtered_out"}


def test_by_columns_of_the_index(records, tmp_path):
    dataset, pairs = records
    output = run_filter(dataset, tmp_path / "out", "--where", "source <> 'wit' and row >= 30")
    kept = {pair.key: pair for pair in pairs if pair.source != "wit" and pair.row >= 30}
    index = pq.read_table(output / "index").to_pylist()
    assert {row["key"] for row in index} == kept.keys()
    assert {row["key"]: row["crop_boxes"] for row in index} == {
        row["key"]: row["crop_boxes"] for row in pq.read_table(dataset / "index").to_pylist() if row["key"] in kept
    }
    ledger = json.loads((output / "ledger.json").read_text())["sources"]
    before = json.loads((dataset / "ledger.json").read_text())["sources"]
    assert {name: rows["read"] for name, rows in ledger.items()} == {
        name: rows["read"] for name, rows in before.items()
    }
    assert sum(rows["rejected"]["encode"]["filtered_out"] for rows in ledger.values()) == 60 - len(kept)
    assert ledger["wit"]["rejected"]["select"] == before["wit"]["rejected"]["select"]
    assert rejects(output)[pairs[1].key] == f"source {pairs[1].source}, row 1"


def test_by_scores(records, scores, tmp_path):
    dataset, pairs = records
    output = run_filter(dataset, tmp_path / "out", "--scores", scores, "--where", "clip >= 0.28 and width = 64")
    kept = set(pq.read_table(output / "index")["key"].to_pylist())
    assert kept == {pair.key for pair in pairs if pair.row >= 28}
    assert rejects(output)[pairs[0].key] == "clip missing, width 64"
    assert rejects(output)[pairs[7].key] == "clip 0.07, width 64"


def test_bytes_do_not_depend_on_workers_or_repeated_bundles(records, scores, tmp_path):
    arguments = ["--scores", scores, "--where", "clip > 0.2", "--pairs-per-shard", 9]
    one = run_filter(records[0], tmp_path / "one", *arguments)
    two = run_filter(records[0], tmp_path / "two", *arguments, "--direct_runner_bundle_repeat=1", workers=2)
    assert files_of(one) == files_of(two)


def damaged_list(folder: Path) -> None:
    (folder / "scores.json").write_text("{")


def damaged_file(folder: Path) -> None:
    for path in (folder / "scores").iterdir():
        path.write_bytes(path.read_bytes()[:-9])


def lost_file(folder: Path) -> None:
    listed = json.loads((folder / "scores.json").read_text())
    listed["files"] = listed["files"][1:]
    (folder / "scores.json").write_text(json.dumps(listed))


def unfinished(folder: Path) -> None:
    (folder / "scores.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damaged_list, "scores.json is damaged"),
        (damaged_file, "is not readable: .*; run the same `pairmill score` again"),
        (lost_file, "does not name all files"),
        (unfinished, "run `pairmill score` to its end first"),
    ],
)
def test_scores_that_can_not_be_read(records, tmp_path, damage, said):
    folder = write_scores(tmp_path / "scores", {record.key: {"clip": 0.5} for record in records[1]})
    damage(folder)
    with pytest.raises(UserError, match=said):
        run_filter(records[0], tmp_path / "out", "--scores", folder, "--where", "clip > 0.2")


def test_a_condition_is_checked_before_anything_is_written(records, tmp_path):
    with pytest.raises(UserError, match="there is no column clip; there are key, split"):
        run_filter(records[0], tmp_path / "out", "--where", "clip > 0.2")
    assert not (tmp_path / "out").exists()
