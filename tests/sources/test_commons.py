"""Wikimedia Commons: structured captions and descriptions, in both of its dumps; dumps as 7z."""

from __future__ import annotations

import bz2
import gzip
import html
import json
import sys

import pytest

from models.errors import UserError
from pipeline.filters import SelectConfig, filter_candidate
from pipeline.records import Candidate, Pair
from pipeline.sources import commons
from pipeline.sources.check_files import check_files
from pipeline.sources.commons import Text
from pipeline.sources.file_ranges import file_ranges, read_range
from tests.support.dumps import HEAD, article, page
from tests.support.narrowing import instance

COMMONS = HEAD.replace("dewiki", "commonswiki").replace("de.wikipedia.org", "commons.wikimedia.org")
LABELS = {"de": "Ein Hund am Strand", "en": "A dog on a beach"}


def entity(number: int, labels: dict[str, str], title: str = "File:A dog.jpg") -> dict:
    values = {language: {"language": language, "value": value} for language, value in labels.items()}
    return {"type": "mediainfo", "id": f"M{number}", "pageid": number, "ns": 6, "title": title, "labels": values or [],
            "descriptions": [], "statements": {"P180": [{"mainsnak": {}, "rank": "normal"}]}}  # fmt: skip


def file_page(number: int, title: str, text: str, slot: str = "") -> str:
    """As the dump has it: the page's text first, then its structured data in a slot."""
    whole = page(number, text, 6).replace(f"Seite {number} &amp; mehr", html.escape(title))
    content = (
        "<content><role>mediainfo</role><origin>9</origin><model>wikibase-mediainfo</model>"
        f"<format>application/json</format><text>{html.escape(slot)}</text></content>"
    )
    return whole.replace("    </revision>", f"      {content}\n    </revision>") if slot else whole


def read(path) -> list:
    ranges = file_ranges("wikipedia-dump", str(path))
    check_files(ranges, {})
    return [row for each in ranges for row in read_range(each)]


def information(description: str) -> str:
    return "== Summary ==\n{{Information\n|description=" + description + "\n|date=2010\n|author=[[User:X|X]]\n}}"


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("A brown dog", [("", "A brown dog")]),
        ("{{en|1=A [[dog]] at ''sea''}}", [("en", "A dog at sea")]),
        ("{{en|A dog}}{{de|1=Ein Hund}}", [("en", "A dog"), ("de", "Ein Hund")]),
        ("{{de|1=Ein Hund}} {{pt-br|1=Um cão}} A dog", [("de", "Ein Hund"), ("pt-br", "Um cão"), ("", "A dog")]),
        ("{{mld|en=A dog|de=Ein Hund}}", [("en", "A dog"), ("de", "Ein Hund")]),
        ("{{ca|1=Un gos}}", [("ca", "Un gos")]),
        ("A tower of {{convert|10|m|ft}}", [("", "A tower of 10 m")]),
        ("{{en|1=A {{w|Dog|dog}} of {{circa|1900}}}}", [("en", "A Dog of c. 1900")]),
        ("{{en|1=A {{strange thing}} here}}", [("en", "")]),
        ("", []),
    ],
)
def test_descriptions(description, expected):
    found = list(commons.descriptions(information(description)))
    assert [(text.language, text.text) for text in found] == expected
    assert [bool(text.unrenderable) for text in found] == [not text for _, text in expected]


def test_descriptions_of_other_templates():
    text = (
        "{{Artwork\n|artist=x\n|title=y\n|Description = {{en|A bowl of fruit}}\n}}{{Photograph|description=A street}}"
    )
    assert [text.text for text in commons.descriptions(text)] == ["A bowl of fruit", "A street"]


def test_the_best_text_comes_first():
    captions = [Text("de", "Hund"), Text("en", "Dog"), Text("en-gb", "A dog")]
    found = commons.best_first(captions, [Text("", "dog!"), Text("en", "Dog"), Text("fr", "chien")])
    assert [text.text for text in found] == ["Dog", "A dog", "dog!", "Hund", "chien"]


@pytest.mark.parametrize("pack", [bytes, bz2.compress, gzip.compress])
def test_pages(tmp_path, pack):
    text = information("{{en|1=Our brown dog runs along the beach}}{{fr|1=Notre chien}}")
    pages = [
        file_page(7, "File:A dog.jpg", text, json.dumps(entity(7, LABELS))),
        file_page(8, "File:B.svg", text, json.dumps(entity(8, {}))),
        file_page(9, "File:C.jpg", "no description", "not JSON"),
        file_page(10, "File:D.webm", text),
        page(11, "[[File:A dog.jpg|thumb|a gallery of dogs]]"),
    ]
    (tmp_path / "dump").write_bytes(pack((COMMONS + "".join(pages) + "</mediawiki>").encode()))
    first, second, third, video = read(tmp_path / "dump")
    assert isinstance(first, Candidate)
    assert first.raw_caption == "A dog on a beach"
    assert first.alternatives == ("Our brown dog runs along the beach", "Ein Hund am Strand", "Notre chien")
    assert first.row == 70_000 and first.page_url == "https://commons.wikimedia.org/wiki/File:A_dog.jpg"
    assert "500px-A_dog.jpg" in first.url and len(first.fallback_urls) == 1
    assert (second.raw_caption, second.mime_type) == ("Our brown dog runs along the beach", "image/png")
    assert third.raw_caption == "" and video.reason == "video"
    pair = instance(filter_candidate(first, SelectConfig()), Pair)
    assert (pair.caption, pair.other_captions) == ("A dog on a beach", ("Our brown dog runs along the beach",))


@pytest.mark.parametrize("pack", [bytes, bz2.compress, gzip.compress])
def test_structured_data(tmp_path, pack):
    entities = [entity(7, LABELS), entity(8, {}, "File:B.png")]
    text = "[\n" + ",\n".join(json.dumps(each, separators=(",", ":")) for each in entities) + "\n]\n"
    (tmp_path / "commons-20240101-mediainfo.json").write_bytes(pack(text.replace("\n]", ",\n{cut\n]").encode()))
    first, second, broken = read(tmp_path / "commons-20240101-mediainfo.json")
    assert (first.raw_caption, first.alternatives) == ("A dog on a beach", ("Ein Hund am Strand",))
    assert (first.row, second.row, second.raw_caption) == (70_000, 80_000, "")
    assert broken.reason == "malformed_row" and "not readable as JSON" in broken.detail


# 7z


def seven_zip(folder, **members: bytes):
    try:
        import libarchive
    except (ImportError, OSError, TypeError, AttributeError):  # no package; no shared library
        pytest.skip("needs libarchive (Debian: libarchive13) and libarchive-c (the extra 7z)")
    with libarchive.file_writer(str(folder / "dump.7z"), "7zip") as archive:
        for name, data in members.items():
            archive.add_file_from_memory(name, len(data), data)
    return folder / "dump.7z"


HISTORY = article(100).replace(
    "    <revision>",
    "    <revision>\n      <id>1</id>\n      <text>[[Datei:Alt.jpg|mini|Ein alter Text]]</text>\n    </revision>\n"
    "    <revision>",
)


def test_a_history_packed_as_7z(tmp_path):
    """The last revision of each page counts."""
    dump = (HEAD + HISTORY + article(101) + "</mediawiki>").encode()
    path = seven_zip(tmp_path, **{"README.txt": b"x", "dewiki-20240101-pages-meta-history.xml": dump})
    captions = ["Ein Boot im Hafen 100", "Der alte Kirchturm", "Ein Boot im Hafen 101", "Der alte Kirchturm"]
    assert [row.raw_caption for row in read(path)] == captions


def test_a_7z_that_is_damaged_or_holds_no_list(tmp_path):
    dump = (HEAD + "".join(map(article, range(100, 3000))) + "</mediawiki>").encode()
    data = bytearray(seven_zip(tmp_path, dump=dump).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "dump.7z").write_bytes(data)
    *rows, last = read(tmp_path / "dump.7z")
    assert rows and last.reason == "damaged_file" and "7z" in last.detail
    for broken in (data[:200], data[:50] + bytes(500) + data[550:]):
        (tmp_path / "dump.7z").write_bytes(broken)
        with pytest.raises(UserError, match="can't be read"):
            read(tmp_path / "dump.7z")
    with pytest.raises(UserError, match="holds no list"):
        read(seven_zip(tmp_path, **{"LICENSE.txt": b"x"}))


def test_a_7z_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "libarchive", None)
    (tmp_path / "dump.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    with pytest.raises(UserError, match="unpack it with `7z x` and name the file in it, or install the extra 7z"):
        read(tmp_path / "dump.7z")


def test_long_histories_keep_their_last_revision(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.sources.wikipedia_dump.MAX_PAGE_BYTES", 2000)
    revision = "    <revision>\n      <id>1</id>\n      <text>" + "x" * 1000 + "</text>\n    </revision>\n"
    dump = HEAD + article(100).replace("    <revision>", revision * 900 + "    <revision>") + "</mediawiki>"
    (tmp_path / "dump").write_text(dump)
    assert [row.raw_caption for row in read(tmp_path / "dump")] == ["Ein Boot im Hafen 100", "Der alte Kirchturm"]
