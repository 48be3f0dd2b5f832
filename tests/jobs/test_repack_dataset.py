"""`pairmill repack` and `pairmill encode --add-to`: datasets out of datasets, nothing encoded again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs import encode_shards, repack_dataset
from models.data.format import read_manifest
from models.errors import UserError
from pipeline import tokenize_stage
from pipeline.dataset import existing
from pipeline.dataset.existing import ExistingDataset, KnownKeys
from pipeline.inspection.faults import verify
from pipeline.inspection.stats import dataset_stats
from tests.support.paths import files_of
from tests.support.records import write_records

ONE_WORKER = "--direct_num_workers=1"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> tuple[Path, Path]:
    """60 pairs, and 60 of which the first ten are in the other one, too."""
    base = tmp_path_factory.mktemp("repack")
    write_records(base / "one", 60, draws=2)
    write_records(base / "two", 60, draws=2, first=50)
    return base / "one", base / "two"


def repack(output: Path, *arguments: object) -> Path:
    assert repack_dataset.main([*map(str, arguments), f"--output={output}", ONE_WORKER]) == 0
    assert verify(str(output), 1) == []
    return output


def shards(directory: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_of(directory).items() if name.endswith(".tar")}


def keys(directory: Path) -> set[str]:
    return set(pq.read_table(directory / "index", columns=["key"])["key"].to_pylist())


def test_other_shards_and_back(datasets, tmp_path):
    whole = repack(tmp_path / "whole", "--dataset", datasets[0])
    many = repack(tmp_path / "many", "--dataset", datasets[0], "--pairs-per-shard", 11)
    assert len(shards(whole)) == 2 and len(shards(many)) == 6 and keys(many) == keys(datasets[0])
    assert shards(repack(tmp_path / "back", "--dataset", many)) == shards(whole)
    sizes = sorted(shard.pairs for shard in read_manifest(many).shards)
    assert sizes == [6, 10, 11, 11, 11, 11]  # val is one, and train as even as can be


def test_shards_of_so_many_bytes(datasets, tmp_path):
    """20 kB are 20 pairs here: a member takes two blocks."""
    output = repack(tmp_path / "out", "--dataset", datasets[0], "--bytes-per-shard", 20_000)
    assert [shard.pairs for shard in read_manifest(output).shards] == [18, 18, 18, 6]
    assert read_manifest(output).settings["shards"] == {"bytes": 20_000}
    with pytest.raises(UserError, match="--pairs-per-shard and --bytes-per-shard: give one of them"):
        repack_dataset.main([f"--dataset={output}", "--pairs-per-shard=9", "--bytes-per-shard=9", f"--output={output}"])


def test_merged_and_thinned_out(datasets, tmp_path, capsys):
    """Every row of both is accounted for; the pairs that both have are kept once."""
    one, two = datasets
    merged = repack(tmp_path / "merged", "--dataset", one, "--dataset", two)
    assert keys(merged) == keys(one) | keys(two) and len(keys(merged)) == 110
    ledger = json.loads((merged / "ledger.json").read_text())["sources"]
    assert sum(account["read"] for account in ledger.values()) == 124
    assert sum(account["rejected"].get("encode", {}).get("duplicate_pair", 0) for account in ledger.values()) == 10
    thin = repack(
        tmp_path / "thin", "--dataset", one, "--dataset", two, "--share", 1, "--share", 0.5, "--only-source", "wit"
    )
    wit = {
        row["key"] for path in (one, two) for row in pq.read_table(path / "index").to_pylist() if row["source"] == "wit"
    }
    assert keys(thin) < wit and keys(thin) >= wit & keys(one)
    reasons = json.loads((thin / "ledger.json").read_text())["sources"]["cc3m"]["rejected"]["encode"]
    assert reasons == {"sampled_out": 40}


def test_balanced_to_the_same_bytes_by_any_workers(datasets, tmp_path, capsys):
    words = tmp_path / "words.txt"
    words.write_text("cat\nsnow\nzebra\n")
    balance = ["--dataset", datasets[0], "--balance", f"{words}=5"]
    one = repack(tmp_path / "one", *balance)
    printed = capsys.readouterr().out
    two = tmp_path / "two"
    workers = ["--direct_num_workers=2", "--direct_runner_bundle_repeat=1"]
    assert repack_dataset.main([*map(str, balance), f"--output={two}", *workers]) == 0
    assert files_of(one) == files_of(two)
    ledger = json.loads((one / "ledger.json").read_text())
    report = ledger["balance"]
    assert report["by"] == "concept" and report["limit"] == 5
    assert report["pairs"] == {"before": 60, "after": len(keys(one))} and len(keys(one)) < 20
    assert [each["name"] for each in report["largest"]] == ["snow", "cat"]
    reasons = [rows["rejected"]["encode"] for rows in ledger["sources"].values()]
    assert sum(each["balanced_out"] + each["no_concept"] for each in reasons) == 60 - len(keys(one))
    assert "head: concepts of more than 5" in printed and "balance by concept, limit 5: 60 pairs before" in printed
    assert dataset_stats(str(one))["balance"] == report
    sha256 = hashlib.sha256(words.read_bytes()).hexdigest()
    assert read_manifest(one).settings["balance"] == {"by": "concept", "limit": 5, "concepts_sha256": sha256}


def test_what_does_not_fit_together_is_refused(datasets, tmp_path):
    write_records(tmp_path / "other", 9, draws=1)
    for arguments, said in (
        (["--dataset", datasets[0], "--dataset", tmp_path / "other"], "has 1 crops for each image"),
        (["--dataset", datasets[0], "--share", "0"], "--share 0: give a number above 0"),
        (["--dataset", datasets[0], "--share", "2"], r"--share 2: .* a dataset holds a pair once: .* weights="),
        (["--dataset", datasets[0], "--share", "1", "--share", "1"], "2 for 1 datasets"),
        (["--dataset", datasets[0], "--only-source", "laion"], "--only-source laion: the datasets have cc12m"),
        (["--dataset", datasets[0], "--balance", "host"], "--balance host: give WHAT=LIMIT, such as host=1000"),
        (["--dataset", datasets[0], "--balance", "host=0"], "0: give 1 or more"),
        (["--dataset", datasets[0], "--balance", f"{tmp_path / 'none.txt'}=9"], "none.txt is not readable"),
        (["--dataset", tmp_path], "not a finished dataset"),
    ):
        with pytest.raises(UserError, match=said):
            repack_dataset.main([*map(str, arguments), f"--output={tmp_path / 'out'}"])


def test_encode_adds_what_is_new_and_nothing_else(images, tiny_dvae, tmp_path, monkeypatch):
    """The result is what encoding all at once gives."""
    options = [f"--image-tokenizer={tiny_dvae}", "--text-tokenizer=bundled", "--pairs-per-shard=7", ONE_WORKER]
    old, both, whole = tmp_path / "old", tmp_path / "both", tmp_path / "whole"
    assert encode_shards.main([f"--images={images}/0000[0-3].tar", *options, f"--output={old}"]) == 0
    assert encode_shards.main([f"--images={images}/*.tar", *options, f"--output={whole}"]) == 0
    before = files_of(old)
    encoded, prepare = [], tokenize_stage.prepare

    def recorded(image, *by):
        encoded.append(image.pair.key)
        return prepare(image, *by)

    monkeypatch.setattr(tokenize_stage, "prepare", recorded)
    assert encode_shards.main([f"--images={images}/*.tar", *options, f"--add-to={old}", f"--output={both}"]) == 0
    assert sorted(encoded) == sorted(keys(whole) - keys(old)) and len(encoded) == 10
    assert files_of(old) == before
    # All bytes but those that say how it was made.
    made, at_once = (
        {
            name: data
            for name, data in files_of(output).items()
            if name not in ("manifest.json", "README.md", "croissant.json")
        }
        for output in (both, whole)
    )
    assert made == at_once
    assert verify(str(both), 1) == []
    with pytest.raises(UserError, match="it has 1 crops for each image; give --draws 1"):
        encode_shards.main(
            [f"--images={images}/*.tar", *options, "--draws=2", f"--add-to={old}", f"--output={tmp_path / 'no'}"]
        )
    add = [f"--images={images}/*.tar", *options, f"--add-to={old}", "--overwrite"]
    with pytest.raises(UserError, match="is read by this encode, too; choose another folder"):
        encode_shards.main([*add, f"--output={old}/"])
    with pytest.raises(UserError, match=r"holds a finished encode .* to add to it, name it as --add-to"):
        encode_shards.main([f"--images={images}/*.tar", *options, f"--output={old}"])
    assert files_of(old) == before
    assert read_manifest(both).settings["added_to"] == read_manifest(old).settings


def test_a_known_key_may_end_in_zeros(tmp_path):
    """Of 256 keys one does; numpy's fixed-width bytes do not hold such an end."""
    write_records(tmp_path)  # with rejects whose keys are 0 and 1
    known = KnownKeys(ExistingDataset(str(tmp_path), read_manifest(tmp_path)), unfetched=False)
    assert f"{0:032x}" in known and f"{1:032x}" in known
    assert f"{256:032x}" not in known and "0" * 30 + "ff" not in known


def test_each_process_reads_known_keys_once(tmp_path, monkeypatch):
    write_records(tmp_path / "dataset")
    dataset = ExistingDataset(str(tmp_path / "dataset"), read_manifest(tmp_path / "dataset"))
    first = existing.known_keys(dataset, unfetched=True)
    monkeypatch.setattr(existing.pq, "read_table", lambda *_, **__: pytest.fail("read again"))
    assert existing.known_keys(dataset, unfetched=True) is first
    other = dataset._replace(manifest=dataclasses.replace(dataset.manifest, draws=9))
    with pytest.raises(pytest.fail.Exception, match="read again"):  # another dataset lies there by now
        existing.known_keys(other, unfetched=True)


@pytest.mark.parametrize("key", ["x" * 32, "AB" * 16])
def test_a_key_that_is_none(key):
    with pytest.raises(ValueError, match="32 hex digits"):
        existing.packed_keys(pa.chunked_array([["ab" * 16, key]]))
