"""What a source knows of a picture beside its URL: the hash of its bytes, or the picture itself."""

from __future__ import annotations

import base64
import concurrent.futures
import gzip
import hashlib
import io
import json
import os
import pickle
import tarfile
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs import fetch_images, select_pairs
from models.errors import UserError
from pipeline.fetch.units import unit_hash
from pipeline.images.shard_reader import read_image_shard
from pipeline.inspection import show
from pipeline.records import Candidate, Pair
from pipeline.sources import cc12m, url_index, wit
from pipeline.sources.file_ranges import FileRange, read_range
from pipeline.sources.paths import FILES_AT_ONCE, map_files
from pipeline.sources.stored_images import NotStored, location_hash, read_stored
from pipeline.sources.url_index import UrlIndex, write_index
from tests.support.narrowing import instance, instances
from tests.support.paths import ROOT

ONE_WORKER = "--direct_num_workers=1"
IMAGES = ROOT / "sample" / "images"
CAPTION = "A brown dog runs along the beach, number"


def sha256(name: str) -> str:
    return hashlib.sha256((IMAGES / name).read_bytes()).hexdigest()


def select(output: Path, *options: str) -> list[dict]:
    assert select_pairs.main([*options, f"--output={output}", ONE_WORKER]) == 0
    return sorted(pq.read_table(output / "pairs").to_pylist(), key=lambda row: row["row"])


def fetch(pairs: Path, output: Path, *options: str) -> dict:
    """Returns the account of the only source."""
    assert (
        fetch_images.main(
            [
                f"--pairs={pairs}",
                f"--output={output}",
                "--allow-address=127.0.0.0/8",
                "--retries=0",
                *options,
                ONE_WORKER,
            ]
        )
        == 0
    )
    [account] = json.loads((output / "ledger.json").read_text())["sources"].values()
    return account


# Hashes


def test_an_index_finds_every_url_and_no_other(tmp_path):
    urls = [f"http://a.example/{number}.jpg" for number in range(5000)] + ["http://é.example/\ud800"]
    values = [hashlib.md5(url.encode("utf-8", "surrogatepass")).digest() for url in urls]
    path = str(tmp_path / "index")
    assert write_index(path, [*zip(urls, values, strict=True), (urls[0], b"x" * 16)], 16) == len(urls) + 1
    index = UrlIndex(path, 16)
    assert [index.get(url) for url in urls] == values
    assert index.get("http://a.example/5000.jpg") is None
    assert (tmp_path / "index").stat().st_size == 32 * (len(urls) + 1)


def test_an_index_tells_urls_of_one_half_hash_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(url_index, "_digest", lambda url: b"\1" * 8 + hashlib.md5(url.encode()).digest()[:8])
    write_index(str(tmp_path / "index"), [(text, text.encode()) for text in "abc"], 1)
    assert [UrlIndex(str(tmp_path / "index"), 1).get(text) for text in "cabd"] == [b"c", b"a", b"b", None]


def test_an_empty_index(tmp_path):
    assert write_index(str(tmp_path / "index"), [], 16) == 0
    assert UrlIndex(str(tmp_path / "index"), 16).get("http://a") is None


def test_images_that_are_no_longer_the_same_are_rejected(server, tmp_path):
    urls = [f"{server.url}/images/{name}" for name in ("cat.jpg", "dog.jpg", "coffee.jpg", "cow.jpg")]
    (tmp_path / "cc12m.tsv").write_text("".join(f"{url}\t{CAPTION} {n}\n" for n, url in enumerate(urls)))
    hashes = [sha256("cat.jpg").upper(), "0" * 64, ""]  # of the fourth nothing is known
    (tmp_path / "hashes.tsv.gz").write_bytes(
        gzip.compress(
            "".join(
                f"{url}\t{each}\t{'0' * 32 if each else ''}\n" for url, each in zip(urls, hashes, strict=False)
            ).encode()
        )
    )
    pairs = select(
        tmp_path / "pairs", f"--source=cc12m={tmp_path}/cc12m.tsv", f"--cc12m-hashes={tmp_path}/hashes.tsv.gz"
    )
    assert [row["expected_sha256"] for row in pairs] == [sha256("cat.jpg"), "0" * 64, "", ""]
    settings = json.loads((tmp_path / "pairs" / "settings.json").read_text())["select"]
    assert settings["cc12m"]["hashes"].endswith("hashes.tsv.gz") and len(settings["files"]) == 2
    account = fetch(tmp_path / "pairs", tmp_path / "images")
    assert account == {"read": 4, "kept": 3, "rejected": {"fetch": {"hash_mismatch": 1}}}


@pytest.mark.parametrize("header", ["", "url,sha256,md5\n"])
def test_a_file_of_hashes_with_commas(tmp_path, header):
    (tmp_path / "hashes.csv").write_text(f"{header}http://a.example/1,2.jpg,{'ab' * 32},{'0' * 32}\r\n")
    assert list(cc12m.read_hashes(f"{tmp_path}/hashes.csv")) == [("http://a.example/1,2.jpg", b"\xab" * 32)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("http://a\tA caption\n", "line 1: not a row of URL, SHA256 and MD5"),
        ("", "no hash in it"),
        (f"http://a\t{'0' * 64}\t{'0' * 32}\nhttp://b\t{'0' * 32}\t{'0' * 64}\n", "line 2: not a row"),
        ("http://a\0\t\t\n", "line 1: the row holds a NUL byte"),
    ],
)
def test_a_file_of_hashes_that_is_none(tmp_path, text, fault):
    (tmp_path / "hashes.tsv").write_text(text)
    with pytest.raises(UserError, match=rf"hashes\.tsv.*{fault}"):
        cc12m.index_hashes(f"{tmp_path}/hashes.tsv", f"{tmp_path}/index")


def test_ranges_of_the_list_are_given_their_hashes_too(tmp_path):
    lines = [f"http://a.example/{n}.jpg\t{CAPTION} {n}\n" for n in range(100)]
    (tmp_path / "cc12m.tsv").write_text("".join(lines))
    write_index(f"{tmp_path}/index", ((line.split("\t")[0], bytes([n]) * 32) for n, line in enumerate(lines)), 32)
    size = (tmp_path / "cc12m.tsv").stat().st_size
    settings = {"cc12m": cc12m.Cc12mSettings(f"{tmp_path}/index")}
    found = [
        row
        for ends in ((0, size // 2), (size // 2, size))
        for row in read_range(FileRange("cc12m", f"{tmp_path}/cc12m.tsv", "lines", *ends), settings)
    ]
    assert [row.expected_sha256 for row in instances(found, Candidate)] == [f"{n:02x}" * 32 for n in range(100)]


# Images

DEAD = "http://127.0.0.1:1"  # where nobody answers
NAMES = ("cat.jpg", "dog.jpg", "coffee.jpg", "cow.jpg")


def data(name: str) -> bytes:
    return (IMAGES / name).read_bytes()


def write_wit_base(folder: Path) -> str:
    """Row groups of two rows; of the last picture there are no bytes."""
    images = [{"bytes": data(name), "path": None} for name in NAMES[:3]] + [{"bytes": None, "path": None}]
    features = [
        {
            name: [text]
            for name, text in (
                ("language", "en"),
                ("page_url", "https://en.wikipedia.org/wiki/A"),
                ("caption_reference_description", f"{CAPTION} {n}"),
                ("caption_alt_text_description", None),
            )
        }
        for n in range(4)
    ]
    pq.write_table(
        pa.table(
            {
                "image": images,
                "image_url": [f"{DEAD}/base/{n}.svg" for n in range(4)],
                "embedding": [[0.1, 0.2]] * 4,
                "metadata_url": ["http://commons.wikimedia.org/wiki/File:A.svg"] * 4,
                "original_height": [300] * 4,
                "original_width": [400] * 4,
                "mime_type": ["image/svg+xml"] * 4,
                "caption_attribution_description": ["English: A"] * 4,
                "wit_features": features,
            }
        ),
        folder / "train-00000-of-00330.parquet",
        row_group_size=2,
    )
    return f"--source=wit-base={folder}/train-*.parquet"


def write_kaggle(folder: Path) -> list[str]:
    """Rows of which the pixels are there, are none, and are elsewhere."""
    names = wit.COLUMNS
    lines = []
    for number in range(3):
        row = dict.fromkeys(names, "") | {
            "language": "en",
            "page_url": "https://en.wikipedia.org/wiki/B",
            "image_url": f"{DEAD}/kaggle/{number}.jpg",
            "caption_reference_description": f"{CAPTION} {number}",
            "mime_type": "image/jpeg",
            "original_height": "300",
            "original_width": "400",
        }
        lines.append("\t".join(row[name] for name in names))
    (folder / "train-00000-of-00005.tsv").write_text("\n".join(["\t".join(names), *lines, ""]))
    encoded = base64.b64encode(data("brick.jpg")).decode()
    page = "http://commons.wikimedia.org/wiki/File:B.jpg"
    (folder / "part-00000.csv.gz").write_bytes(
        gzip.compress(f"\t{encoded}\t{page}\n{DEAD}/kaggle/1.jpg\t!!!\t{page}\n".encode())
    )
    (folder / "part-00001.csv").write_text(f"{DEAD}/kaggle/0.jpg\t{encoded}\t{page}\n")
    return [f"--source=wit={folder}/train-*.tsv", f"--wit-pixels={folder}/part-*"]


def write_img2dataset(folder: Path, form: str) -> str:
    """Two rows that img2dataset fetched, of which a tar or folder has lost the second, and one that failed."""
    folder.mkdir()
    table = {
        "key": ["000000000", "000000001", "000000002"],
        "url": [f"{DEAD}/{form}/{n}.jpg" for n in range(3)],
        "caption": [f"{CAPTION} {n}" for n in range(3)],
        "status": ["success"] * 2 + ["failed_to_download"],
        "width": [256, 256, None],
        "original_width": [640, 640, None],
        "original_height": [480, 480, None],
    }
    image = data({"tar": "comb.png", "folder": "chicken.jpg", "parquet": "bison.jpg"}[form])
    if form == "parquet":
        table["jpg"] = [image, None, None]
    pq.write_table(pa.table(table), folder / "00000.parquet")
    if form == "folder":
        (folder / "00000").mkdir()
        (folder / "00000" / "000000000.jpg").write_bytes(image)
    if form == "tar":
        with tarfile.open(folder / "00000.tar", "w") as tar:
            for name, body in (("000000000.json", b"{}"), ("000000000.png", image), ("000000000.txt", b"A caption")):
                info = tarfile.TarInfo(name)
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    return f"--source=img2dataset={folder}"


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """select's and fetch's outputs of all that needs no fetching."""
    base = tmp_path_factory.mktemp("stored")
    options = [
        write_wit_base(base),
        *write_kaggle(base),
        *(write_img2dataset(base / form, form) for form in ("tar", "folder", "parquet")),
    ]
    select(base / "pairs", *options)
    assert (
        fetch_images.main(
            [
                f"--pairs={base}/pairs",
                f"--output={base}/images",
                "--allow-address=127.0.0.0/8",
                "--retries=0",
                "--pairs-per-unit=4",
                ONE_WORKER,
            ]
        )
        == 0
    )
    return base


def test_images_that_the_sources_hold_are_not_fetched(stored):
    accounts = json.loads((stored / "images" / "ledger.json").read_text())["sources"]
    assert accounts == {
        "wit-base": {"read": 4, "kept": 3, "rejected": {"fetch": {"not_stored": 1}}},
        "wit": {"read": 3, "kept": 1, "rejected": {"fetch": {"connection": 1, "not_an_image": 1}}},
        "img2dataset": {"read": 9, "kept": 3, "rejected": {"fetch": {"connection": 3, "not_stored": 3}}},
    }
    found = {
        hashlib.sha256(image.data).hexdigest()
        for path in (stored / "images").glob("*.tar")
        for image in read_image_shard(str(path))
    }
    assert found == {sha256(name) for name in (*NAMES[:3], "brick.jpg", "comb.png", "chicken.jpg", "bison.jpg")}


def test_show_of_what_fetch_left(stored, capsys):
    assert show.main([f"{stored}/images"]) == 0
    text = capsys.readouterr().out
    assert "rejected in fetch, not_stored: 4 rows" in text and "rejected in fetch, connection: 4 rows" in text
    assert show.main([f"{stored}/pairs", "--count=100"]) == 0
    assert "16 of 16 pairs" in capsys.readouterr().out


def test_what_is_missing_is_told(stored):
    rows = pq.read_table(stored / "images" / "rejects").to_pylist()
    details = {row["detail"] for row in rows if row["reason"] == "not_stored"}
    assert details == {
        "train-00000-of-00330.parquet#3 is not there",
        "00000.tar#000000001 is not there",
        "00000#000000001 is not there",
        "00000.parquet#1 is not there",
    }


def pair_at(stored_at: str) -> Pair:
    return Pair("0" * 32, "wit-base", "f", 0, "http://a", [], "c", "c", None, None, "", "", "train", "", stored_at)


def test_files_that_are_gone_or_damaged(tmp_path):
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "cut.tar").write_bytes(b"no tar at all" * 100)
    for name, detail in (
        ("gone.tar", "can't be opened"),
        ("gone", "can't be opened"),
        ("cut.parquet", "can't be read"),
        ("cut.tar", "can't be read"),
    ):
        [(_, failed)] = read_stored([pair_at(f"{tmp_path}/{name}#0")])
        assert f"{name}#0 {detail}" in instance(failed, NotStored).detail


def test_neighbours_go_into_one_unit():
    assert unit_hash(pair_at("")) == 0 != unit_hash(pair_at("/a/0.parquet#5"))
    blocks = [location_hash(f"/a/0.parquet#{row}") for row in range(1000)]
    assert len(set(blocks)) == 10 and blocks[0] == blocks[99] == location_hash("/b/0.parquet#50")
    assert len({location_hash(f"/a/part-0.csv.gz#{row}") for row in range(1000)}) == 1
    assert location_hash("/a/00000.tar#000000099") == location_hash("/a/00000.tar#000000000")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("http://a\tAAAA\n", "line 1: not a row of image URL"),
        (f"http://a\t{'A' * 9_000_000}\tb\n", "line 1: a row of 9"),
        ("http://a\tAAAA\tb\n\n\0\t\t\n", "line 2: not a row"),
    ],
)
def test_a_file_of_pixels_that_is_none(tmp_path, text, fault):
    (tmp_path / "part.csv").write_text(text)
    with pytest.raises(UserError, match=fault):
        wit.index_pixels([f"{tmp_path}/part.csv"], f"{tmp_path}/index")


def test_many_files_of_pixels_are_indexed_by_processes(tmp_path, monkeypatch):
    """In this process it would be: the files' rows in order."""
    for number in range(4):
        rows = [f"http://a/{number}/{row % 5}\tAAAA\tb\n" for row in range(9)]
        (tmp_path / f"{number}.csv").write_text("".join(rows))
    used, indexes = [], [f"{tmp_path}/{name}.index" for name in ("many", "one")]

    class Pool(concurrent.futures.ThreadPoolExecutor):  # threads, which start at once
        def __init__(self, workers, context):
            super().__init__(workers)
            used.append((workers, context.get_start_method()))

        def map(self, function, *iterables, timeout=None, chunksize=1):
            return super().map(pickle.loads(pickle.dumps(function)), *iterables, timeout=timeout, chunksize=chunksize)

    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", Pool)
    for index, cores in zip(indexes, (2, 1), strict=True):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        wit.index_pixels([f"{tmp_path}/*.csv"], index)
    assert used == [(2, "spawn")]
    assert Path(indexes[0]).read_bytes() == Path(indexes[1]).read_bytes()


def test_files_are_looked_into_several_at_once():
    """Each waits for all others."""
    barrier = threading.Barrier(FILES_AT_ONCE, timeout=30)
    assert map_files(lambda number: (barrier.wait(), number)[1], range(FILES_AT_ONCE)) == list(range(FILES_AT_ONCE))
