"""What a source knows of a picture beside its URL: the hash of its bytes, or the picture itself."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from beam_jobs import fetch_images, select_pairs
from models.errors import UserError
from pipeline.sources import Piece, SourceSettings, cc12m, rows_of, url_index
from pipeline.sources.url_index import UrlIndex, write_index
from tests.conftest import ROOT

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
    assert fetch_images.main([f"--pairs={pairs}", f"--output={output}", "--allow-address=127.0.0.0/8", "--retries=0",
                              *options, ONE_WORKER]) == 0
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


def test_pictures_that_are_no_longer_the_same_are_rejected(server, tmp_path):
    urls = [f"{server.url}/images/{name}" for name in ("cat.jpg", "dog.jpg", "coffee.jpg", "cow.jpg")]
    (tmp_path / "cc12m.tsv").write_text("".join(f"{url}\t{CAPTION} {n}\n" for n, url in enumerate(urls)))
    hashes = [sha256("cat.jpg").upper(), "0" * 64, ""]  # of the fourth nothing is known
    (tmp_path / "hashes.tsv.gz").write_bytes(gzip.compress("".join(
        f"{url}\t{each}\t{'0' * 32 if each else ''}\n" for url, each in zip(urls, hashes, strict=False)).encode()))
    pairs = select(tmp_path / "pairs", f"--source=cc12m={tmp_path}/cc12m.tsv",
                   f"--cc12m-hashes={tmp_path}/hashes.tsv.gz")
    assert [row["expected_sha256"] for row in pairs] == [sha256("cat.jpg"), "0" * 64, "", ""]
    settings = json.loads((tmp_path / "pairs" / "settings.json").read_text())["select"]
    assert settings["cc12m"]["hashes"].endswith("hashes.tsv.gz") and len(settings["files"]) == 2
    account = fetch(tmp_path / "pairs", tmp_path / "images")
    assert account == {"read": 4, "kept": 3, "rejected": {"fetch": {"hash_mismatch": 1}}}


@pytest.mark.parametrize("header", ["", "url,sha256,md5\n"])
def test_a_file_of_hashes_with_commas(tmp_path, header):
    (tmp_path / "hashes.csv").write_text(f"{header}http://a.example/1,2.jpg,{'ab' * 32},{'0' * 32}\r\n")
    assert list(cc12m.read_hashes(f"{tmp_path}/hashes.csv")) == [("http://a.example/1,2.jpg", b"\xab" * 32)]


@pytest.mark.parametrize(("text", "fault"), [
    ("http://a\tA caption\n", "line 1: not a row of URL, SHA256 and MD5"), ("", "no hash in it"),
    (f"http://a\t{'0' * 64}\t{'0' * 32}\nhttp://b\t{'0' * 32}\t{'0' * 64}\n", "line 2: not a row"),
    ("http://a\0\t\t\n", "line 1: the row holds a NUL byte")])  # fmt: skip
def test_a_file_of_hashes_that_is_none(tmp_path, text, fault):
    (tmp_path / "hashes.tsv").write_text(text)
    with pytest.raises(UserError, match=rf"hashes\.tsv.*{fault}"):
        cc12m.index_hashes(f"{tmp_path}/hashes.tsv", f"{tmp_path}/index")


def test_ranges_of_the_list_are_given_their_hashes_too(tmp_path):
    lines = [f"http://a.example/{n}.jpg\t{CAPTION} {n}\n" for n in range(100)]
    (tmp_path / "cc12m.tsv").write_text("".join(lines))
    write_index(f"{tmp_path}/index", ((line.split("\t")[0], bytes([n]) * 32) for n, line in enumerate(lines)), 32)
    size = (tmp_path / "cc12m.tsv").stat().st_size
    settings = SourceSettings(cc12m=cc12m.Cc12mSettings(f"{tmp_path}/index"))
    found = [row for ends in ((0, size // 2), (size // 2, size))
             for row in rows_of(Piece("cc12m", f"{tmp_path}/cc12m.tsv", "lines", *ends), settings)]
    assert [row.expected_sha256 for row in found] == [f"{n:02x}" * 32 for n in range(100)]
