"""Dumps of Wikipedia: real multistream files with an index, and what editors write."""

from __future__ import annotations

import bz2
import hashlib
import html

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup import normalised_url
from pipeline.records import Candidate, Rejected
from pipeline.sources import SourceSettings, pieces, rows_of, wikipedia_dump
from pipeline.sources.wikipedia_dump import DumpSettings, Wiki, links, picture_urls, plain_text

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de">
  <siteinfo><sitename>Wikipedia</sitename><dbname>dewiki</dbname>
    <base>https://de.wikipedia.org/wiki/Wikipedia:Hauptseite</base>
    <namespaces><namespace key="0" case="first-letter" /><namespace key="6" case="first-letter">Datei</namespace>
    </namespaces></siteinfo>
"""
DUMP = "dewiki-20240101-pages-articles-multistream.xml.bz2"
INDEX = "dewiki-20240101-pages-articles-multistream-index.txt.bz2"


def page(number: int, text: str, namespace: int = 0, redirect: str = "") -> str:
    return (f"  <page>\n    <title>Seite {number} &amp; mehr</title>\n    <ns>{namespace}</ns>\n    <id>{number}</id>\n"
            f"{redirect}    <revision>\n      <id>{number + 10**6}</id>\n      <text xml:space=\"preserve\">"
            f"{html.escape(text, quote=False)}</text>\n    </revision>\n  </page>\n")


def article(number: int) -> str:
    return page(number, f"Text [[Datei:Bild {number}.jpg|mini|links|200px|Ein Boot im Hafen {number}]] und "
                        f"<gallery>\nBild:Turm {number}.png|Der ''alte'' [[Turm|Kirchturm]]\n</gallery>")


def write_dump(folder, streams: list[str], index: bool = True) -> list[int]:
    """The file as it is published: the head, the pages, the end, each a bzip2 stream; the offsets of the streams."""
    offsets, data, rows = [], bz2.compress(HEAD.encode()), []
    for text in streams:
        offsets.append(len(data))
        for number in text.split("<id>")[1::2]:
            rows.append(f"{len(data)}:{number.partition('<')[0]}:Seite {number.partition('<')[0]}\n")
        data += bz2.compress(text.encode())
    data += bz2.compress(b"</mediawiki>\n")
    (folder / DUMP).write_bytes(data)
    if index:
        (folder / INDEX).write_bytes(bz2.compress("".join(rows).encode()))
    return offsets


@pytest.fixture
def streams() -> list[str]:
    return ["".join(article(number) for number in range(first, first + 10)) for first in range(100, 200, 10)]


def read_all(folder, settings=DumpSettings()):  # noqa: B008
    found = pieces("wikipedia-dump", f"{folder}/*multistream*.bz2")
    return found, [row for piece in found for row in rows_of(piece, SourceSettings(wikipedia_dump=settings))]


def test_with_and_without_the_index(tmp_path, streams, monkeypatch):
    monkeypatch.setattr(wikipedia_dump, "PART_BYTES", 1500)
    wikipedia_dump.head.cache_clear()
    write_dump(tmp_path, streams)
    parts, rows = read_all(tmp_path)
    assert len(parts) > 3 and {part.kind for part in parts} == {"streams"}
    (tmp_path / INDEX).unlink()
    [whole], again = read_all(tmp_path)
    assert whole.kind == "file" and rows == again and len(rows) == 200
    assert [row.row for row in rows[:4]] == [1_000_000, 1_000_001, 1_010_000, 1_010_001]
    assert rows[0] == Candidate(
        "wikipedia-dump", DUMP, 1_000_000, picture_urls("Bild_100.jpg", WIKI, 500)[0],
        tuple(picture_urls("Bild_100.jpg", WIKI, 500)[1:]), "Ein Boot im Hafen 100", None, None, "",
        "https://de.wikipedia.org/wiki/Seite_100_%26_mehr", "image/jpeg")
    assert rows[1].raw_caption == "Der alte Kirchturm" and "Turm_100.png" in rows[1].url


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("share", [0.2, 0.55, 0.97])
def test_a_dump_that_is_cut_off(tmp_path, streams, monkeypatch, index, share):
    monkeypatch.setattr(wikipedia_dump, "PART_BYTES", 1500)
    wikipedia_dump.head.cache_clear()
    write_dump(tmp_path, streams, index)
    whole = read_all(tmp_path)[1]
    data = (tmp_path / DUMP).read_bytes()
    (tmp_path / DUMP).write_bytes(data[: int(len(data) * share)])
    rows = read_all(tmp_path)[1]
    good = [row for row in rows if isinstance(row, Candidate)]
    assert good == whole[: len(good)] and abs(len(good) / 200 - share) < 0.15
    assert [row.reason for row in rows[len(good):]] == ["malformed_row"] and "cut off" in rows[-1].detail


def test_what_is_no_article_and_what_is_no_xml(tmp_path):
    wikipedia_dump.head.cache_clear()
    broken = page(3, "[[Datei:A.jpg|drei Wörter hier]]").replace("<revision>", "<revision")
    redirect = page(2, "[[Datei:A.jpg]]", redirect='<redirect title="B"/>')
    write_dump(tmp_path, [page(1, "[[Datei:A.jpg|x y z]]", namespace=6) + redirect + broken + article(4)], False)
    rows = read_all(tmp_path)[1]
    assert [isinstance(row, Rejected) for row in rows] == [True, False, False]
    assert "not readable as XML" in rows[0].detail


WIKI = Wiki("de.wikipedia.org", frozenset({"datei", "bild", "file", "image"}))


@pytest.mark.parametrize(("text", "expected"), [
    ("[[Datei:a b.jpg|mini|Ein Hund]]", [("a b.jpg", "Ein Hund")]),
    ("[[File:A.jpg|thumb|upright=1.2|left|alt=An alt|A dog]]", [("A.jpg", "A dog")]),
    ("[[File:A.jpg|A dog|thumb|right|220x100px]]", [("A.jpg", "A dog")]),
    ("[[ image : A.jpg |thumb| first | the last ]]", [("A.jpg", "the last")]),
    ("[[Bild:A.jpg|thumb|alt=A small dog]]", [("A.jpg", "A small dog")]),
    ("[[File:A.jpg|frameless|100px]]", [("A.jpg", "")]),
    ("[[File:A.jpg|thumb|A [[dog]] and [[cat|two cats]], {{nowrap|10 km}} off{{citation needed}}<ref>[[File:B.jpg|no]]"
     "</ref> in ''the'' '''park''' &amp; [http://x.example garden] ]]",
     [("A.jpg", "A dog and two cats, 10 km off in the park & garden"), ("B.jpg", "no")]),
    ("[[:File:A.jpg|a link only]] [[Media:A.jpg]] [[A.jpg]]", []),
    ("<!-- [[File:A.jpg|x]] --><nowiki>[[File:B.jpg|y]]</nowiki>[[File:C.jpg|z]]", [("C.jpg", "z")]),
    ("[[File:A.jpg|never closed", []),
    ("[[File:A.jpg|thumb|a [[File:B.png|20px]] inside]]", [("A.jpg", "a inside"), ("B.png", "")]),
    ("<gallery mode=packed caption=\"x\">\nFile:A.jpg|One [[two|three]]\nB b.png\n\nno file\nDatei:C.jpg|alt=says|\n"
     "</gallery>",
     [("A.jpg", "One three"), ("B b.png", ""), ("C.jpg", "says")]),
    ("{{Infobox building\n| name = X\n| image = A b.jpg\n| caption = The ''old'' house\n| image2 = B.png\n"
     "| caption2 = Two\n}}",
     [("A b.jpg", "The old house"), ("B.png", "Two")]),
    ("{{Infobox person|image=[[File:A.jpg|200px|A man]]|caption=not twice}}", [("A.jpg", "A man")]),
    ("{{Infobox person|image={{CSS image crop|Image=A.jpg}}|caption=x}}", []),
])  # fmt: skip
def test_links(text, expected):
    assert [tuple(link) for link in links(text, WIKI)] == expected


def test_addresses():
    folder = hashlib.md5("Ä_b.jpg".encode()).hexdigest()
    base, quoted = "https://upload.wikimedia.org/wikipedia", "%C3%84_b.jpg"
    place = f"{folder[0]}/{folder[:2]}/{quoted}"
    name = wikipedia_dump.file_name(" ä_ b.jpg ")
    assert picture_urls(name, WIKI, 500) == [
        f"{base}/commons/thumb/{place}/500px-{quoted}", f"{base}/commons/{place}",
        f"{base}/de/thumb/{place}/500px-{quoted}", f"{base}/de/{place}"]
    assert picture_urls(name, WIKI, 0) == [f"{base}/commons/{place}", f"{base}/de/{place}"]
    # known: https://commons.wikimedia.org/wiki/File:Example.jpg
    assert wikipedia_dump.file_url("Example.jpg", "commons").endswith("/commons/a/a9/Example.jpg")
    names = [picture_urls(f"X.{ending}", WIKI, 330)[0].rpartition("/")[2] for ending in ("svg", "tif", "pdf", "gif")]
    assert names == [
        "330px-X.svg.png", "lossy-page1-330px-X.tif.jpg", "page1-330px-X.pdf.jpg", "330px-X.gif"]
    assert all("/thumb/" in url for url in picture_urls("X.svg", WIKI, 0))
    assert picture_urls("X.ogg", WIKI, 500) == []
    assert picture_urls("x" * 200 + ".jpg", WIKI, 500)[0].endswith("/500px-thumbnail.jpg")
    assert normalised_url(picture_urls(name, WIKI, 500)[0]) == normalised_url(picture_urls(name, WIKI, 0)[0])


def test_what_can_be_no_picture(tmp_path):
    wikipedia_dump.head.cache_clear()
    text = "[[File:A.webm|ein Film über Boote]] [[File:B.ogg|ein Ton]] [[File:C.svg|eine Karte]]"
    write_dump(tmp_path, [page(5, text)], False)
    assert [getattr(row, "reason", "") for row in read_all(tmp_path)[1]] == ["video", "unsupported_type", ""]


PARTS = ["[[", "]]", "{{", "}}", "|", "File:", "A.jpg", "<gallery>", "</gallery>", "\n", "'''", "=", "<ref>", "</ref>",
         "<!--", "-->", "{{Infobox x", "image=", "&lt;", "text", "\0"]


@given(st.lists(st.sampled_from(PARTS), max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_wikitext_can_be_read(parts):
    for link in links("".join(parts), WIKI):
        assert isinstance(plain_text(link.caption), str)
