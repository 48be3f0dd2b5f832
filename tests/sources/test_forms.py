"""Every form in which the lists circulate, as a small file made as its publisher makes it."""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline.filters import SelectConfig, filter_candidate
from pipeline.records import Candidate, Pair, Reason, Rejected
from pipeline.sources import yfcc100m
from pipeline.sources.check_files import check_files
from pipeline.sources.file_ranges import count_lines, file_ranges, first_line_number, read_range
from pipeline.sources.registry import SOURCES
from pipeline.sources.stored_images import read_stored
from pipeline.sources.table import TableSettings
from tests.support.narrowing import instance
from tests.support.source_rows import csv_row, wit_fields, wit_row, yfcc_fields

PAIRS = [
    ("http://a.example/1.jpg", "a brown dog on a beach ."),
    ("https://b.example/2.jpg?w=1,2", 'the sign says "stop", in red'),
    ("http://c.example/3.png", "two boats | one harbour; no wind"),
]


def read(path, source: str, settings=None) -> list:
    ranges = file_ranges(source, str(path))
    check_files(ranges, {source: settings} if settings else {})
    counts = [count_lines(each) for each in ranges if each.kind == "lines"]
    chosen = {source: settings} if settings else {}
    return [row for each in ranges for row in read_range(each, chosen, first_line_number(each, counts))]


def found(rows: list) -> list[tuple[str, str]]:
    return [(row.url, row.raw_caption) if isinstance(row, Candidate) else (row.reason, row.detail) for row in rows]


def table(*columns: str, delimiter=",", index=False, quoting=csv.QUOTE_MINIMAL, header=True, end="\n") -> bytes:
    """A list as pandas' to_csv writes it; columns named u and c are URL and caption, others a constant."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    names = {"u": "url", "c": "caption"}
    if header:
        writer.writerow([*([""] if index else []), *(names.get(name, name) for name in columns)])
    for number, (url, caption) in enumerate(PAIRS):
        kinds = [
            url if name.lower() in ("u", "url", "image_url") else caption if name.lower() in ("c", "text") else "x"
            for name in columns
        ]
        writer.writerow([*([number] if index else []), *kinds])
    return text.getvalue().encode()


def parquet(rows: list[dict], **options) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, **options)
    return file.getvalue()


def json_lines(rows: list[dict]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return file.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def named(url: str, caption: str) -> list[dict]:
    return [{url: a, caption: b} for a, b in PAIRS]


PLAIN = "".join(f"{caption}\t{url}\n" for url, caption in PAIRS).encode()
TRAILING = "".join(f"{caption}\t{url}\t\n" for url, caption in PAIRS).encode()
INDEXED = "".join(f"{number}\t{caption}\t{url}\n" for number, (url, caption) in enumerate(PAIRS)).encode()
QUOTED_URL = "".join(f'{caption}\t"{url}"\n' for url, caption in PAIRS[:1]).encode()
CONCEPTUAL = {
    "as published": PLAIN,
    "trailing tab": TRAILING,
    "index": INDEXED,
    "Parquet": parquet(named("url", "caption")),
    "Parquet, capitals": parquet(named("URL", "TEXT")),
    "Parquet, index": parquet([row | {"__index_level_0__": 3} for row in named("image_url", "caption")]),
    "csv caption,url": table("c", "u"),
    "csv url,caption": table("u", "c"),
    "csv caption,image_url": table("c", "image_url"),
    "csv TEXT,URL": table("TEXT", "URL"),
    "csv with index": table("c", "u", index=True),
    "csv with id": table("id", "c", "u"),
    "csv, \\r\\n": table("c", "u", end="\r\n"),
    "csv without header": table("c", "u", header=False),
    "csv without header, index": table("u", "c", header=False, index=True),
    "csv, all quoted": table("c", "u", quoting=csv.QUOTE_ALL),
    "semicolons": table("c", "u", delimiter=";"),
    "bars": table("c", "u", delimiter="|"),
    "tsv with header": table("c", "u", delimiter="\t"),
    "tsv with index": table("c", "u", delimiter="\t", index=True),
    "tsv, all quoted": table("c", "u", delimiter="\t", quoting=csv.QUOTE_ALL),
    "tsv without header, all quoted": table("c", "u", delimiter="\t", quoting=csv.QUOTE_ALL, header=False),
    "tsv, pandas' quotes": table("c", "u", delimiter="\t", header=False),
    "UTF-16": PLAIN.decode().encode("utf-16"),
    "UTF-16 BE": b"\xfe\xff" + PLAIN.decode().encode("utf-16-be"),
    "UTF-16 csv": table("c", "u").decode().encode("utf-16"),
    "zip": zipped(**{"list.tsv": PLAIN, "__MACOSX____._list.tsv": b"\0\5\26\7", "README.txt": b"a list"}),
    "zip of Parquet": zipped(**{"list.parquet": parquet(named("url", "caption"))}),
    "zip of gz": zipped(**{"list.tsv.gz": gzip.compress(PLAIN)}),
    "zst": zstandard.ZstdCompressor().compress(PLAIN),
    "zst csv": zstandard.ZstdCompressor().compress(table("c", "u")),
    "xz": lzma.compress(PLAIN),
    "tar.gz": tarred("cc3m/list.tsv", PLAIN),
    "json": json.dumps(named("url", "caption")).encode(),
    "json, indented": json.dumps(named("url", "caption"), indent=2).encode(),
    "json lines": json_lines(named("url", "caption")),
    "json lines.gz": gzip.compress(json_lines(named("image_url", "text"))),
    "json of columns": json.dumps({"url": [a for a, _ in PAIRS], "caption": [b for _, b in PAIRS]}).encode(),
    "pandas' json": json.dumps(
        {
            "url": {str(number): url for number, (url, _) in enumerate(PAIRS)},
            "caption": {str(number): caption for number, (_, caption) in enumerate(PAIRS)},
        }
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("source", ["cc3m", "cc12m", "table"])
@pytest.mark.parametrize("form", CONCEPTUAL)
def test_conceptual_captions(tmp_path, form, source):
    path = tmp_path / "list"
    path.write_bytes(CONCEPTUAL[form])
    rows = read(path, source)
    assert found(rows) == PAIRS
    assert [(row.source, row.row) for row in rows] == [(source, number) for number in range(3)]


def test_quoted_urls(tmp_path):
    (tmp_path / "list").write_bytes(QUOTED_URL)
    assert found(read(tmp_path / "list", "cc3m")) == PAIRS[:1]


BIG = [(f"http://a.example/{number}.jpg", f"a boat, number {number}, in a harbour") for number in range(3000)]
SPLIT: dict[str, Callable[[], bytes]] = {
    "json lines": lambda: json_lines([{"url": url, "caption": caption} for url, caption in BIG]),
    "tsv with header": lambda: "".join(
        ["id\tcaption\turl\n", *(f"7\t{caption}\t{url}\n" for url, caption in BIG)]
    ).encode(),
    "bz2": lambda: bz2.compress(
        "".join(["\tcaption\turl\n", *(f"7\t{caption}\t{url}\n" for url, caption in BIG)]).encode(), 1
    ),
    "Parquet": lambda: parquet([{"url": url, "caption": caption} for url, caption in BIG], row_group_size=500),
}


@pytest.mark.parametrize("form", SPLIT)
def test_big_files_are_read_in_ranges(tmp_path, form, monkeypatch):
    """The same rows with the same numbers, wherever the cuts are."""
    path = tmp_path / "list"
    path.write_bytes(SPLIT[form]())
    whole = read(path, "cc12m")
    monkeypatch.setattr("pipeline.sources.source.RANGE_BYTES", 20_000)
    monkeypatch.setattr("pipeline.sources.table_source.PARQUET_RANGE_BYTES", 30_000)
    assert len(file_ranges("cc12m", str(path))) > 1
    assert read(path, "cc12m") == whole
    assert found(whole) == BIG and [row.row for row in whole] == list(range(3000))


def test_rows_that_are_none_are_counted(tmp_path):
    text = 'caption,url\na dog,http://a.example/1.jpg\nno url\n"open quote,http://a.example/2.jpg\n'
    (tmp_path / "list.csv").write_text(text)
    (tmp_path / "list.jsonl").write_text(
        '{"caption": "a", "url": "http://a"}\n{"caption": \n[1]\n{"url": "http://b"}\n'
    )
    assert [type(row) for row in read(tmp_path / "list.csv", "cc3m")] == [Candidate, Rejected, Rejected]
    rows = read(tmp_path / "list.jsonl", "cc3m")
    assert [row.row for row in rows] == [0, 1, 2, 3]
    assert [getattr(row, "reason", "") for row in rows] == ["", *["malformed_row"] * 3]
    (tmp_path / "cut.json").write_text('[{"caption": "a", "url": "http://a"}, {"capt')
    [row] = [row for each in file_ranges("cc3m", f"{tmp_path}/cut.json") for row in read_range(each)]
    assert instance(row, Rejected).reason == Reason.DAMAGED_FILE


# Any other table

OTHERS = {
    "LAION": ([{"SAMPLE_ID": 1, "URL": "http://a", "TEXT": "a dog", "HEIGHT": 300, "WIDTH": 400, "LICENSE": "?"}], ()),
    "COYO": ([{"id": 1, "url": "http://a", "text": "a dog", "width": 400, "height": 300, "image_phash": "0f"}], ()),
    "DataComp": ([{"uid": "0f", "url": "http://a", "text": "a dog", "original_width": 400, "original_height": 300,
                   "sha256": "ab" * 32}], ()),
    "DreamLIP": ([{"Image Path": "http://a", "raw_caption": "dog", "longSV_captions": "a dog", "w": 400, "h": 300}],
                 ("url=Image Path", "caption=longSV_captions", "caption=raw_caption", "width=w", "height=h")),
    "one's own": ([{"bild": "http://a", "wort": "a dog", "w": "400", "h": "300"}],
                  ("url=bild", "caption=wort", "width=w", "height=h")),
}  # fmt: skip


@pytest.mark.parametrize("form", [parquet, json_lines])
@pytest.mark.parametrize("name", OTHERS)
def test_a_table_of_any_columns(tmp_path, name, form):
    rows, columns = OTHERS[name]
    (tmp_path / "list").write_bytes(form(rows))
    [row] = read(tmp_path / "list", "table", TableSettings(columns))
    assert (row.url, row.raw_caption, row.width, row.height) == ("http://a", "a dog", 400, 300)
    assert row.alternatives == (("dog",) if name == "DreamLIP" else ())
    assert row.expected_sha256 == ("ab" * 32 if name == "DataComp" else "")


def test_redcaps(tmp_path):
    post = {"image_id": "abc", "author": "x", "url": "https://i.redd.it/a.jpg", "raw_caption": "Our dog [OC]",
            "caption": "our dog", "subreddit": 3, "score": 9, "created_utc": 1, "permalink": "/r/a/1",
            "crosspost_parents": None}  # fmt: skip
    data = json.dumps({"info": {"version": "v1.0", "url": "https://redcaps.xyz"}, "annotations": [post] * 2}).encode()
    (tmp_path / "dogs_2017.json").write_bytes(data)
    rows = read(tmp_path / "dogs_2017.json", "redcaps")
    assert found(rows) == [("https://i.redd.it/a.jpg", "Our dog [OC]")] * 2
    assert rows[0].alternatives == ("our dog",) and rows[0].page_url == "/r/a/1"
    members = {"LICENSE.txt": b"CC-BY", "TERMSOFUSE.txt": b"..."}
    members |= {f"annotations__{name}.json": data for name in ("dogs_2017", "cats_2018")}
    (tmp_path / "redcaps.zip").write_bytes(zipped(**members))
    rows = read(tmp_path / "redcaps.zip", "redcaps")
    assert [(row.file, row.row) for row in rows] == [
        ("cats_2018.json", 0), ("cats_2018.json", 1), ("dogs_2017.json", 0), ("dogs_2017.json", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("pack", [bytes, lambda data: tarred("sbu-captions-all.json", data)])
def test_sbu(tmp_path, pack):
    document = {"image_urls": [a for a, _ in PAIRS], "user_ids": ["1"] * 3, "captions": [b for _, b in PAIRS]}
    (tmp_path / "sbu").write_bytes(pack(json.dumps(document).encode()))
    assert found(read(tmp_path / "sbu", "sbu")) == PAIRS


# WIT


def test_wit_as_kaggle_s_zip(tmp_path):
    header, row = csv_row(list(wit_row())), csv_row(wit_fields(1))
    one = zipped(**{"train-00000-of-00005.tsv": header + row + row})
    (tmp_path / "one.zip").write_bytes(one)
    whole = zipped(
        **{
            "train-00000-of-00005.tsv": header + row,
            "train-00001-of-00005.tsv": header + row + row,
            "test.tsv": b"id\timage_url\n1\thttp://a\n",
            "sample_submission.csv": b"id,caption_title_and_reference_description\n",
            "image_data_test__image_pixels__part-00000.csv": b"http://a\tAAAA\thttp://b\n",
        }
    )
    (tmp_path / "whole.zip").write_bytes(whole)
    assert [row.row for row in read(tmp_path / "one.zip", "wit")] == [0, 1]
    assert [(row.file[:11], row.row) for row in read(tmp_path / "whole.zip", "wit")] == [
        ("train-00000", 0), ("train-00001", 0), ("train-00001", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("form", [parquet, json_lines, lambda rows: gzip.compress(json_lines(rows))])
def test_wit_with_named_columns(tmp_path, form):
    row = wit_row(caption_reference_description="A weir", caption_alt_text_description="alt") | {
        "original_height": 300, "original_width": 400, "is_main_image": True,
    }  # fmt: skip
    (tmp_path / "part-00000").write_bytes(form([row]))
    [found] = read(tmp_path / "part-00000", "wit")
    assert (found.url, found.raw_caption, found.width) == (row["image_url"], "A weir", 400)
    assert found.alternatives == ("alt",)


@pytest.mark.parametrize("source", ["wit", "wit-base"])
def test_wit_s_images_as_json(tmp_path, source):
    row = {
        "b64_bytes": base64.b64encode(b"image").decode(), "image_url": "http://a", "metadata_url": "http://b",
        "original_height": 300, "original_width": 400, "mime_type": "image/jpeg", "embedding": [0.5] * 2048,
        "caption_attribution_description": None,
        "wit_features": [{"language": "en", "page_url": "p", "caption_reference_description": "A weir"}],
    }  # fmt: skip
    (tmp_path / "part-00000.json.gz").write_bytes(gzip.compress(json_lines([row] * 2)))
    rows = read(tmp_path / "part-00000.json.gz", source)
    assert found(rows) == [("http://a", "A weir")] * 2
    assert rows[1].stored_at == f"{tmp_path}/part-00000.json.gz#1"
    pair = instance(filter_candidate(rows[1]._replace(raw_caption="A weir in the river"), SelectConfig()), Pair)
    assert [data for _, data in read_stored([pair])] == [b"image"]


# YFCC100M

YFCC = dict(zip(yfcc100m.COLUMNS, yfcc_fields(1), strict=True))
TITLE = yfcc_fields(1)[6].replace("+", " ")


@pytest.mark.parametrize(
    ("rows", "caption"),
    [
        ([YFCC | {"title_clean": TITLE, "description_clean": "", "key": "4e2f7a26a1dfbf165a7e30bdabf7e72a"}], TITLE),
        ([YFCC | {"description": ""}], TITLE),
        ([{"filename": "a.jpg", "url": YFCC["downloadurl"], "caption": TITLE}], TITLE),
    ],
)
@pytest.mark.parametrize("form", [parquet, json_lines, lambda rows: gzip.compress(json_lines(rows))])
def test_yfcc_with_named_columns(tmp_path, rows, caption, form):
    (tmp_path / "list").write_bytes(form(rows))
    [row] = read(tmp_path / "list", "yfcc100m")
    assert (row.url, row.raw_caption) == (YFCC["downloadurl"], caption)
    assert row.fallback_urls[0].startswith("https://multimedia-commons.s3")


@pytest.mark.parametrize("pack", [bytes, lambda data: zipped(**{"content__yfcc_filtered.csv": data})])
def test_yfcc_filtered(tmp_path, pack):
    data = f"|title|description|final_caption|url\n0|t|d|{TITLE}|{YFCC['downloadurl']}\n".encode()
    (tmp_path / "yfcc_filtered").write_bytes(pack(data))
    [row] = read(tmp_path / "yfcc_filtered", "yfcc100m")
    assert (row.url, row.raw_caption) == (YFCC["downloadurl"], TITLE)


@pytest.mark.parametrize("pack", [bytes, bz2.compress])
@pytest.mark.parametrize("stated", [True, False])
def test_yfcc_subset_of_line_numbers(tmp_path, pack, stated):
    """They are those of the whole list: a row's own where it states one, else its position."""
    array = io.BytesIO()
    np.save(array, np.array([7, 2]))
    (tmp_path / "lines.npy.bz2").write_bytes(pack(array.getvalue()))
    numbers = (2, 3, 7) if stated else range(3)
    fields = [
        [str(number), (row := yfcc_fields(number))[0], "0" * 32, *row[1:]] if stated else yfcc_fields(number)
        for number in numbers
    ]
    (tmp_path / "list").write_text("".join("\t".join(row) + "\n" for row in fields))
    settings = yfcc100m.YfccSettings(subset=f"{tmp_path}/lines.npy.bz2")
    assert SOURCES["yfcc100m"].prepare(settings, str(tmp_path)) == settings
    rows = [
        row for each in file_ranges("yfcc100m", f"{tmp_path}/list") for row in read_range(each, {"yfcc100m": settings})
    ]
    kept = [isinstance(row, Candidate) for row in rows]
    assert kept == ([True, False, True] if stated else [False, False, True])


# Tars without .json


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tars_of_images_and_texts(tmp_path, mode):
    path = tmp_path / ("00000.tar.gz" if mode == "w:gz" else "00000.tar")
    with tarfile.open(path, mode) as tar:
        for name in ("._0.jpg", "0.jpg", "0.seg.png", "0.txt", ".DS_Store", "1.jpg", "1.txt"):
            data = b"A barn" if name.endswith("txt") else b"\xff\xd8"
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    rows = read(path, "img2dataset")
    assert [(row.raw_caption, row.stored_at.rpartition("#")[2]) for row in rows] == [("A barn", "0"), ("A barn", "1")]
