"""Files of images as encode's input: found, listed and read, those of `pairmill fetch` and of img2dataset."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import UserError
from pipeline.fetch.stored_shards import find_image_shards, list_rows, read_images
from pipeline.images.fetched import FetchedImage
from pipeline.images.shard_format import PAIR_COLUMNS, pair_columns
from pipeline.images.validate import ImageConfig
from pipeline.records import Candidate, Pair, Rejected
from pipeline.sources.file_ranges import file_ranges, read_range
from tests.support.fetching import pair, result
from tests.support.images import encoded, jpeg, photo
from tests.support.img2dataset_output import image_row, members_of, write_output, write_tar
from tests.support.narrowing import instance, instances


def pairs_of(path: Path) -> list[Pair]:
    return [row for row in list_rows(str(path)) if isinstance(row, Pair)]


def images_of(path: Path) -> list[FetchedImage | Rejected]:
    return list(read_images(str(path), pairs_of(path), ImageConfig()))


# --- a tar without its Parquet file ----------------------------------------------------------------------------------


def test_samples_of_a_tar(tmp_path):
    samples = [
        {"jpg": jpeg(seed=1), "txt": b"a bison", "json": json.dumps(image_row(0)).encode()},
        {"webp": encoded(photo(256, 171), "WEBP"), "json": json.dumps(image_row(1)).encode()},  # no --save_caption
        {"PNG": encoded(photo(100, 90), "PNG"), "txt": b"no  json"},
        {"jpg": jpeg()[:-900], "txt": b"cut off"},
        {"jpg": jpeg(300, 100), "txt": b"too wide"},
        {"txt": b"no picture", "json": b"{}"},
    ]
    members = [(f"{n:09d}.{ending}", data) for n, sample in enumerate(samples) for ending, data in sample.items()]
    write_tar(tmp_path / "00000.tar", members)
    found = images_of(tmp_path / "00000.tar")
    assert [result(one) for one in found] == ["fetched"] * 3 + ["corrupt_image", "aspect_ratio"]
    fetched = instances(found[:3], FetchedImage)
    pairs = [one.pair for one in fetched]
    assert [one.caption for one in pairs] == ["a bison", image_row(1)["caption"], "no json"]
    assert [(one.source, one.file, one.row) for one in pairs] == [("img2dataset", "00000.tar", n) for n in range(3)]
    assert pairs[2].url == f"sha256:{hashlib.sha256(samples[2]['PNG']).hexdigest()}"
    assert [one.sha256 for one in fetched] == [hashlib.sha256(one.data).hexdigest() for one in fetched]


def test_without_json_a_key_is_of_image_and_caption(tmp_path):
    samples = [(jpeg(seed=1), b"a boat"), (jpeg(seed=2), b"a boat"), (jpeg(seed=1), b"a ship")]
    for name, order in (("00000.tar", samples), ("00007.tar", samples[::-1])):
        members = [((f"{n}.jpg", data), (f"{n}.txt", text)) for n, (data, text) in enumerate(order)]
        write_tar(tmp_path / name, [member for both in members for member in both])
    keys = [one.key for one in pairs_of(tmp_path / "00000.tar")]
    assert len(set(keys)) == 3
    assert [one.key for one in pairs_of(tmp_path / "00007.tar")] == keys[::-1]  # wherever they stand


def test_other_members_are_no_samples(tmp_path):
    row, mask = image_row(0), encoded(photo(64, 64), "PNG")
    members = [
        ("._000000000.jpg", b"of macOS"),
        ("./000000000.jpg", jpeg(seed=1)),
        ("./000000000.seg.png", mask),
        ("./000000000.txt", row["caption"].encode()),
        ("./000000000.json", json.dumps(row).encode()),
        (".DS_Store", b"of macOS"),
    ]
    write_tar(tmp_path / "00000.tar", members)
    [one] = instances(images_of(tmp_path / "00000.tar"), FetchedImage)
    assert (one.data, one.pair.caption, one.pair.url) == (jpeg(seed=1), row["caption"], row["url"])


def test_dots_in_keys(tmp_path):
    members = [("a/photo.v1.jpg", jpeg(seed=1)), ("a/photo.v1.txt", b"one"), ("a/photo.v2.jpg", jpeg(seed=2))]
    write_tar(tmp_path / "00000.tar", members)
    found = instances(images_of(tmp_path / "00000.tar"), FetchedImage)
    assert [(one.data, one.pair.caption) for one in found] == [(jpeg(seed=1), "one"), (jpeg(seed=2), "")]


def test_damaged_metadata_is_a_reject_that_names_the_key(tmp_path):
    write_tar(tmp_path / "00000.tar", [("000000000.jpg", jpeg()), ("000000000.json", b"{")])
    [row] = instances(list_rows(str(tmp_path / "00000.tar")), Rejected)
    assert row.reason == "malformed_row" and "000000000" in row.detail


# --- its forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["webdataset", "files", "parquet"])
def test_forms(tmp_path, form):
    rows = [image_row(n) for n in range(3)] + [image_row(3, status="failed_to_resize", error_message="image too small")]
    images = {row["key"]: jpeg(seed=n) for n, row in enumerate(rows[:3])}
    write_output(tmp_path / "out", form, rows, images)
    for pattern in ("out", "out/*.parquet", *(["out/00000"] if form == "files" else [])):
        [path] = find_image_shards(str(tmp_path / pattern))
        assert path == str(tmp_path / "out" / ("00000.tar" if form == "webdataset" else "00000.parquet"))
    assert [one.data for one in instances(images_of(Path(path)), FetchedImage)] == list(images.values())
    [failed] = [row for row in list_rows(path) if isinstance(row, Rejected)]
    assert (failed.reason, failed.detail) == ("not_stored", "failed_to_resize: image too small")
    [file_range] = file_ranges("img2dataset", str(tmp_path / "out"))
    stored = instances(list(read_range(file_range))[:3], Candidate)
    assert [one.stored_at for one in pairs_of(Path(path))] == [one.stored_at for one in stored]


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz"])
@pytest.mark.parametrize("with_table", [False, True])
def test_compressed_tars(tmp_path, suffix, with_table):
    rows = [image_row(n) for n in range(2)]
    write_tar(tmp_path / f"00000.{suffix}", [member for n in range(2) for member in members_of(rows[n], jpeg(seed=n))])
    if with_table:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "00000.parquet")
    for pattern in (tmp_path, tmp_path / f"*.{suffix}"):
        [path] = find_image_shards(str(pattern))
        assert path == str(tmp_path / f"00000.{suffix}")
    assert [one.data for one in instances(images_of(Path(path)), FetchedImage)] == [jpeg(seed=0), jpeg(seed=1)]


def test_a_compressed_tar_that_was_cut_off(tmp_path):
    rows = [image_row(n) for n in range(20)]
    path = tmp_path / "00000.tar.gz"
    write_tar(path, [member for n in range(20) for member in members_of(rows[n], jpeg(seed=n))])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *_, last = list_rows(str(path))
    assert "not readable as a tar file from here on" in instance(last, Rejected).detail
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "00000.parquet")
    found = images_of(path)
    assert len(found) == 20 and {result(one) for one in found} == {"fetched", "not_stored"}


# --- finding ---------------------------------------------------------------------------------------------------------


def test_finding_shards(tmp_path):
    with pytest.raises(UserError, match=r"no file matches .*; give the folder"):
        find_image_shards(str(tmp_path / "*.tar"))
    with pytest.raises(UserError, match="holds no Parquet file and no tar"):
        find_image_shards(str(tmp_path))
    pq.write_table(pa.Table.from_pylist([image_row(0)]), tmp_path / "00000.parquet")
    for name in ("00001.tar", "00000.tar", "._00000.tar", "._00000.parquet", "00000_stats.json"):
        (tmp_path / name).write_bytes(b"")
    tars = [str(tmp_path / "00000.tar"), str(tmp_path / "00001.tar")]
    assert [find_image_shards(str(tmp_path / name)) for name in ("", "*.tar")] == [tars, tars]
    with pytest.raises(UserError, match=r"00000_stats\.json is neither a tar nor a Parquet file"):
        find_image_shards(str(tmp_path / "*"))


def test_a_list_of_urls_has_no_images(tmp_path):
    pq.write_table(pa.table({"url": ["http://a"], "caption": ["A barn"]}), tmp_path / "list.parquet")
    (tmp_path / "00000.tfrecord").write_bytes(b"")
    pq.write_table(pa.Table.from_pylist([image_row(0)]), tmp_path / "00000.parquet")
    for name in ("list.parquet", "00000.parquet"):
        with pytest.raises(UserError, match=rf"{name} has no images: .* webdataset, files and parquet"):
            find_image_shards(str(tmp_path / name))


def test_the_pairs_of_fetch_keep_their_keys(tmp_path):
    selected = pair("http://a.example/1.jpg")
    sha256 = hashlib.sha256(jpeg()).hexdigest()
    hashes = {"sha256": sha256, "stored_sha256": sha256}
    row = {"key": "000000000", "status": "success", **hashes, **pair_columns(selected)}
    assert PAIR_COLUMNS.keys() <= row.keys()
    write_tar(tmp_path / "00000.tar", members_of(row, jpeg()))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "00000.parquet")
    assert [one.key for one in pairs_of(tmp_path / "00000.tar")] == [selected.key]
    [image] = instances(images_of(tmp_path / "00000.tar"), FetchedImage)
    assert image.pair.source == "test" and image.pair.caption == selected.caption
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "ledger.json").write_text("{}")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "00001.parquet")  # a unit that has no image
    assert find_image_shards(str(tmp_path)) == [str(tmp_path / "00000.tar")]
