"""`pairmill verify`: damage of every kind is found and named; --repair drops what is damaged and accounts for it."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from models.data.format import Manifest, pack_sample, read_manifest, tar_bytes
from models.errors import UserError
from pipeline.dataset.shards import write_shard
from pipeline.inspection.faults import verify
from pipeline.inspection.stats import dataset_stats
from pipeline.inspection.verify import main
from pipeline.output.files import to_json, write_file
from pipeline.output.parquet import table_bytes
from pipeline.output.schemas import INDEX
from pipeline.records import EncodedPair
from tests.support.file_systems import mounted
from tests.support.paths import files_of
from tests.support.records import make_record, write_records

SHARDS = 20


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("verify") / "dataset"
    write_records(output, pairs=120, shards=SHARDS - 1, draws=2)
    return output


@pytest.fixture
def own(dataset, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(dataset, tmp_path / "own"))


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_sound_dataset(dataset, capsys):
    assert main([str(dataset), "--workers=2"]) == 0
    said = capsys.readouterr().out
    assert "120 pairs in 20 shards, all as written" in said and "next: pairmill train --dataset " in said


def test_any_flipped_bit_is_found_and_its_file_named(dataset, own, exhaustive):
    chance = random.Random(5)
    files = sorted(path for path in own.rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    # One in each kind of file, then anywhere.
    kinds = {path.relative_to(own).parts[0] if path.parent != own else path.name: path for path in files}
    chosen = [*kinds.values(), *chance.choices(files, sizes, k=200 if exhaustive else 10)]
    for path in chosen:
        bit = chance.randrange(8 * path.stat().st_size)
        flip(path, bit)
        name = str(path.relative_to(own))
        assert name in {fault.path for fault in verify(str(own), 1)}, (name, bit)
        flip(path, bit)
    assert verify(str(own), 1) == []


@pytest.mark.parametrize("old, new", [("1e-05", "1E-05"), ("\\u00e9", "\\u00E9")])
def test_a_manifest_that_means_the_same_in_other_bytes(own, old, new):
    """Its own hash is over what it means: these flips it cannot see."""
    path = own / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert [fault.path for fault in verify(str(own), 1)] == ["manifest.json"]


def test_missing_superfluous_and_cut_files(own, capsys):
    (own / "train/00003-of-00019.tar").unlink()
    (own / "train/left over.tmp").write_bytes(b"x")
    path = own / "train/00005-of-00019.tar"
    path.write_bytes(path.read_bytes()[:560])
    assert main([str(own), "--workers=1"]) == 1
    said = capsys.readouterr().out
    assert "train/00003-of-00019.tar: missing" in said and "train/left over.tmp: not in the manifest" in said
    assert "train/00005-of-00019.tar: 560 bytes, the manifest says" in said
    assert "train/00005-of-00019.tar: sample 0" in said


def test_a_shard_of_another_dataset_is_told(own, tmp_path):
    write_records(tmp_path / "other", pairs=120, shards=SHARDS - 1, draws=2, first=500)
    shutil.copy(tmp_path / "other/train/00001-of-00019.tar", own / "train/00001-of-00019.tar")
    assert {fault.path for fault in verify(str(own), 1)} == {"train/00001-of-00019.tar"}


# --- what was written wrongly: every hash is right -------------------------------------------------------------------


def rewritten(own: Path, path: str, data: bytes, **changes) -> None:
    """Other bytes for a file, with which the manifest agrees."""
    manifest = read_manifest(own)
    written = write_file(str(own), path, data)

    def changed(entry):
        if entry.path != path:
            return entry
        return dataclasses.replace(entry, bytes=written.bytes, sha256=written.sha256, **changes)

    new = dataclasses.replace(
        manifest, shards=tuple(map(changed, manifest.shards)), files=tuple(map(changed, manifest.files))
    )
    (own / "manifest.json").write_text(new.to_json())


def told(own: Path) -> str:
    return "\n".join(map(str, verify(str(own), 1)))


def first_shard(own: Path) -> tuple[Manifest, str, list[dict]]:
    manifest = read_manifest(own)
    shard = next(shard for shard in manifest.shards if shard.pairs > 3)
    index = f"index/{shard.path.replace('/', '-').removesuffix('.tar')}.parquet"
    return manifest, shard.path, pq.read_table(own / index, partitioning=None).to_pylist()


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda r: r._replace(tokens=b"\5\0\6\0"), "its tokens are not the tokenizer's answer for its caption"),
        (lambda r: r._replace(tokens=b"\xff\xff"), "token 65535 is not in a vocabulary of"),
        (lambda r: r._replace(codes=b"\x20\0" + r.codes[2:]), "code 32 is not in a vocabulary of 32"),
        (lambda r: r._replace(codes=r.codes[:-4]), r"codes of shape (2, 15), expected (2, 16)"),
    ],
)
def test_a_sample_that_is_wrong_is_named(own, change, said):
    _, path, rows = first_shard(own)
    records = {r.key: r for i in range(120) for r in [make_record(i, tokenizer(own), 2)]}
    members: list[EncodedPair] = [records[row["key"]] for row in rows]
    members[2] = change(members[2])
    data = tar_bytes((r.key, pack_sample(r.caption, r.tokens, r.codes, 2), r.source) for r in members)
    rewritten(own, path, data)
    assert told(own).startswith(f"{path}: sample 2 ({members[2].key}): {said}") and "\n" not in told(own)


def tokenizer(own: Path):
    from models.tokenizers.text import TextTokenizer

    return TextTokenizer.load(own / "text_tokenizer.json")


def test_other_numbers_in_manifest_index_and_ledger(own):
    _, path, rows = first_shard(own)
    index = f"index/{path.replace('/', '-').removesuffix('.tar')}.parquet"
    rewritten(own, path, (own / path).read_bytes(), pairs=9)
    assert f"{path}: {len(rows)} samples, the manifest says 9" in told(own)
    rewritten(own, path, (own / path).read_bytes(), pairs=len(rows))
    rewritten(own, index, table_bytes([*rows[:-1], rows[-1] | {"key": "0" * 32}], INDEX))
    assert f"{index}: row {len(rows) - 1} is not sample {len(rows) - 1} of {path}" in told(own)
    rewritten(own, index, table_bytes([row | {"source": "wit"} for row in rows], INDEX))
    assert f"{index}: its sources" in told(own) and "ledger.json: cc3m: 40 rows kept, the shards hold" in told(own)
    rewritten(own, index, table_bytes(rows, INDEX))
    ledger = json.loads((own / "ledger.json").read_text())
    ledger["sources"]["wit"]["rejected"]["select"]["not_english"] = 3
    rewritten(own, "ledger.json", to_json(ledger))
    assert "ledger.json: wit: 42 read is not 40 + 3" in told(own)
    assert "it counts 3 rejected rows, the files in rejects/ hold 2: {'not_english': 1} differ" in told(own)


def test_a_key_in_two_shards(own):
    manifest, path, rows = first_shard(own)
    other = next(s for s in manifest.shards if s.path != path and s.pairs and s.split == "train")
    key = pq.read_table(own / f"index/{other.path.replace('/', '-')[:-4]}.parquet").to_pylist()[0]["key"]
    record = next(r for i in range(120) for r in [make_record(i, tokenizer(own), 2)] if r.key == key)
    members = [
        next(r for i in range(120) for r in [make_record(i, tokenizer(own), 2)] if r.key == row["key"]) for row in rows
    ]
    group = sorted([*members, record], key=lambda r: r.key)
    data = tar_bytes((r.key, pack_sample(r.caption, r.tokens, r.codes, 2), r.source) for r in group)
    rewritten(own, path, data, pairs=len(group))
    assert f"key {key} comes 2 times" in told(own)


def test_duplicate_keys_are_never_written(tmp_path, dataset):
    record = make_record(1, tokenizer(dataset), 1)
    with pytest.raises(RuntimeError, match=f"key {record.key} comes twice"):
        write_shard(str(tmp_path), 1, ("train", 0, 1), [record, record._replace(row=7)])


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path):
    with mounted(tmp_path / "disk", "size=400k") as disk:
        with pytest.raises(UserError, match=r"can't write .*: No space left on device; make room, then run"):
            write_records(disk / "full", pairs=2000, shards=20)
        assert not (disk / "full" / "manifest.json").exists()
        assert not list(disk.rglob("*.tmp")) and list((disk / "full" / "train").iterdir())


@pytest.mark.parametrize("words", [3, 15, 40, 120])
def test_a_shard_is_at_most_half_as_large_again_as_its_payload(words):
    """At one draw of 1,024 codes; without the padding with which a tar file ends."""
    for number in range(100):
        caption = "lorem " * words + "x" * number
        data = pack_sample(caption, bytes(2 * (words + 3)), bytes(2048), 1)
        member = 512 + -(-len(data) // 512) * 512
        assert len(tar_bytes([("0" * 32, data, "wit")])) == -(-(member + 1024) // 10240) * 10240
        assert member <= 1.5 * (len(caption) + 2 * (words + 3) + 2048)


# --- repair ----------------------------------------------------------------------------------------------------------


def test_repair_drops_damaged_shards_and_accounts_for_their_pairs(own, capsys):
    """One shard, the index of another, both of a third; ledger and card too."""
    before = dataset_stats(str(own))
    manifest = read_manifest(own)
    one, two, three = [shard for shard in manifest.shards if shard.pairs][:3]
    for shard, kinds in ((one, "s"), (two, "i"), (three, "si")):
        flip(own / shard.path, 9000) if "s" in kinds else None
        flip(own / f"index/{shard.path.replace('/', '-')[:-4]}.parquet", 900) if "i" in kinds else None
    flip(own / "ledger.json", 100)
    flip(own / "README.md", 100)
    (own / "train" / ".x.tmp").touch()
    assert main([str(own), "--workers=1"]) == 1
    capsys.readouterr()
    assert main([str(own), "--workers=1", "--repair"]) == 0
    said = capsys.readouterr().out
    for shard in (one, two, three):
        assert f"dropped {shard.path} and its index: {shard.pairs} pairs lost" in said
    assert "wrote ledger.json anew" in said and "removed train/.x.tmp" in said
    lost = one.pairs + two.pairs + three.pairs
    after = dataset_stats(str(own))
    assert sum(after["pairs"].values()) == 120 - lost
    assert after["rejects_by_reason"]["encode"] == {"damaged_shard": lost}
    assert {s: a["read"] for s, a in after["sources"].items()} == {s: a["read"] for s, a in before["sources"].items()}
    rejects = [row for row in pq.read_table(own / "rejects").to_pylist() if row["reason"] == "damaged_shard"]
    assert {row["detail"] for row in rejects} == {one.path, two.path, three.path}
    assert all(row["url"] and row["raw_caption"] for row in rejects if row["detail"] == one.path)
    assert all(row["key"] for row in rejects if row["detail"] != three.path)
    assert read_manifest(own).settings["damaged_shards"] == [one.path, two.path, three.path]
    assert main([str(own), "--workers=1"]) == 0


def test_repair_of_a_sound_dataset_changes_nothing(own):
    before = files_of(own)
    assert main([str(own), "--workers=1", "--repair"]) == 0
    assert files_of(own) == before


@pytest.mark.parametrize("name", ["manifest.json", "text_tokenizer.json", "rejects/00001-of-00002.parquet"])
def test_what_cannot_be_repaired_is_left_alone(own, name):
    flip(own / name, 500)
    before = files_of(own)
    with pytest.raises(UserError, match=f"{name} is damaged and cannot be made from other files"):
        main([str(own), "--workers=1", "--repair"])
    assert files_of(own) == before


def test_not_a_dataset(tmp_path):
    with pytest.raises(UserError, match="not a finished dataset"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="--workers 0"):
        main([str(tmp_path), "--workers=0"])


def test_a_manifest_of_a_newer_version(own, capsys):
    path = own / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
    assert main([str(own), "--workers=1"]) == 1
    assert "has version 9; this pairmill reads versions 1 and 2" in capsys.readouterr().out
