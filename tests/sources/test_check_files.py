"""A file of another kind is one line that names the kind and what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import sqlite3
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import UserError
from pipeline.sources.check_files import check_files
from pipeline.sources.file_kinds import TEXT, kind_of
from pipeline.sources.file_ranges import file_ranges
from tests.support.source_rows import TEXTS, name_of, whole


def parquet(**columns) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(100))
    return file.getvalue()


def zipped(**members: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file.getvalue()


WIKIDATA = "<mediawiki xml:lang='en'><siteinfo><sitename>Wikidata</sitename><dbname>wikidatawiki</dbname>"
ROW = "a brown dog on a beach .\thttp://a.example/1.jpg\n"
DUMP = b"-- MySQL dump 10.19  Distrib\n--\nDROP TABLE IF EXISTS `image`;\n"
HASHES = b"http://a.example/1.jpg\t" + b"a" * 64 + b"\t" + b"b" * 32 + b"\n"
WRONG = [
    ("wikipedia-dump", gzip.compress(DUMP, mtime=0), "an SQL dump", "pages-articles"),
    ("wikipedia-dump", WIKIDATA.encode(), "wikidatawiki", "name that of a Wikipedia"),
    ("wikipedia-dump", ROW.encode() * 9, "text", "read as cc3m= or"),
    ("wikipedia-dump", parquet(url=["http://a"], caption=["a"]), "Parquet", "read as"),
    ("cc3m", random.Random(0).randbytes(100_000), "binary data", "name the list itself"),
    ("cc3m", b"\xff\xd8\xff\xe0" + bytes(2000), "an image", "list of images"),
    ("cc3m", b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page", "open its URL in a browser"),
    ("cc3m", b"%PDF-1.4\n", "a PDF", "list itself"),
    ("cc3m", array(), "a NumPy array", "list itself"),
    ("cc3m", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS", "git lfs pull"),
    ("cc3m", parquet(link=["http://a"], caption=["a"]), "none of its first 1 rows", "no column url"),
    ("cc3m", b"name,age\nAnn,3\nBob,4\n", "none of its first 3 rows", "docs/recipes.md"),
    ("cc3m", b"just some words\nand more\n", "none of its first 2 rows", "1 field"),
    ("cc3m", whole("yfcc100m"), "it is one of yfcc100m", "--source yfcc100m="),
    ("cc3m", whole("wit"), "it is one of wit", "--source wit="),
    ("cc3m", whole("wikipedia-dump"), "a MediaWiki dump", "read as wikipedia-dump="),
    ("cc12m", gzip.compress(whole("cc3m"), mtime=0)[:40], "none of its first 1 rows", "cut off"),
    ("cc3m", zipped(**{"a.tsv": ROW})[:60], "the zip is cut off or damaged", "copy it again"),
    ("yfcc100m", b"2\tcat:0.98,dog:0.5\n", "machine labels (yfcc100m_autotags)", ""),
    ("yfcc100m", b"10\t4e2f7a26a1dfbf165a7e30bdabf7e72a\n", "list of hashes (yfcc100m_hash)", ""),
    ("yfcc100m", b"7\tExif.Image.Make:Canon,Exif.Image.Model:EOS\n", "EXIF data (yfcc100m_exif)", ""),
    ("yfcc100m", b"7\t23424829:Germany:Country,56013632:Europe%2FBerlin:Timezone\n", "places (yfcc100m_places)", ""),
    ("yfcc100m", b"3\t6985418911\t4e2f7a26a1dfbf165a7e30bdabf7e72a\n", "subset of YFCC100M", "--yfcc-subset"),
    ("yfcc100m", parquet(a=[1]), "none of its first 1 rows", "no column"),
    ("cc12m", HASHES, "CC12M's file of hashes", "--cc12m-hashes"),
    ("wit", b"name\tage\nAnn\t3\n", "none of its first 2 rows", "2 fields"),
    ("wit-base", b"PAR1PAR1", "none of its first 1 rows", "not readable as Parquet"),
    ("wit-base", ROW.encode(), "it is one of cc3m", "--source cc3m="),
    ("img2dataset", ROW.encode(), "text, not a list of img2dataset", "read as cc3m="),
    ("img2dataset", b"PAR1PAR1", "none of its first 1 rows", "not readable as Parquet"),
    ("table", parquet(link=["http://a"], words=["a"]), "no column url", "docs/recipes.md"),
    ("cc3m", b"", "no row in", "the file is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "data", "kind", "remedy"), WRONG, ids=[f"{row[0]} {row[2]}" for row in WRONG])
def test_another_kind_of_file(tmp_path, source, data, kind, remedy):
    path = tmp_path / ("list.parquet" if source == "img2dataset" else "list.tsv")
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        check_files(file_ranges(source, str(path)), {})
    said = str(error.value)
    assert kind in said and remedy in said and str(path) in said and "\n" not in said and len(said) < 500


def test_a_sqlite_file_of_another_table(tmp_path):
    with sqlite3.connect(tmp_path / "other.sql") as database:
        database.execute("CREATE TABLE photos (photoid)")
    database.close()
    with pytest.raises(UserError, match="sqlite database can't be read"):
        check_files(file_ranges("yfcc100m", f"{tmp_path}/other.sql"), {})
    with pytest.raises(UserError, match="a sqlite database, not a list of cc3m: it is read as yfcc100m="):
        check_files(file_ranges("cc3m", f"{tmp_path}/other.sql"), {})


@pytest.mark.parametrize("source", TEXTS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_a_list_of_its_own_kind_passes(tmp_path, source, pack):
    path = tmp_path / name_of(source)
    path.write_bytes(pack(whole(source, 3)))
    check_files(file_ranges(source, str(path)), {})


def test_one_empty_file_among_others_passes(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"")
    (tmp_path / "b.tsv").write_text(ROW)
    check_files(file_ranges("cc3m", f"{tmp_path}/*.tsv"), {})


@pytest.mark.parametrize(
    "text",
    [
        "ein Hund läuft\thttp://a\n".encode(),
        "犬と猫\thttp://a\n".encode(),
        "Größe\thttp://a\n".encode("latin-1"),
        b"",
        b"a",
    ],
)
def test_text_in_any_script_is_text(text):
    assert kind_of(text) == (TEXT, "")
