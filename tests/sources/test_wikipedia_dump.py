"""Dumps of Wikipedia: real multistream files with an index."""

from __future__ import annotations

import pytest

from pipeline.records import Candidate, Rejected
from pipeline.sources import wikipedia_dump
from pipeline.sources.file_ranges import file_ranges, read_range
from pipeline.sources.wikimedia_urls import image_urls
from pipeline.sources.wikipedia_dump import DEFAULT
from tests.support.dumps import DUMP, INDEX, article, page, write_dump


@pytest.fixture
def streams() -> list[str]:
    return ["".join(article(number) for number in range(first, first + 10)) for first in range(100, 200, 10)]


def read_all(folder, settings=DEFAULT):
    found = file_ranges("wikipedia-dump", f"{folder}/*multistream*.bz2")
    return found, [row for piece in found for row in read_range(piece, {"wikipedia-dump": settings})]


def test_with_and_without_the_index(tmp_path, streams, monkeypatch):
    monkeypatch.setattr(wikipedia_dump, "PART_BYTES", 1500)
    wikipedia_dump.read_wiki.cache_clear()
    write_dump(tmp_path, streams)
    parts, rows = read_all(tmp_path)
    assert len(parts) > 3 and {part.kind for part in parts} == {"streams"}
    (tmp_path / INDEX).unlink()
    [whole], again = read_all(tmp_path)
    assert whole.kind == "file" and rows == again and len(rows) == 200
    assert [row.row for row in rows[:4]] == [1_000_000, 1_000_001, 1_010_000, 1_010_001]
    assert rows[0] == Candidate(
        "wikipedia-dump",
        DUMP,
        1_000_000,
        image_urls("Bild_100.jpg", "de.wikipedia.org", 500)[0],
        tuple(image_urls("Bild_100.jpg", "de.wikipedia.org", 500)[1:]),
        "Ein Boot im Hafen 100",
        None,
        None,
        "",
        "https://de.wikipedia.org/wiki/Seite_100_%26_mehr",
        "image/jpeg",
    )
    assert rows[1].raw_caption == "Der alte Kirchturm" and "Turm_100.png" in rows[1].url


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("share", [0.2, 0.55, 0.97])
def test_a_dump_that_is_cut_off(tmp_path, streams, monkeypatch, index, share):
    monkeypatch.setattr(wikipedia_dump, "PART_BYTES", 1500)
    wikipedia_dump.read_wiki.cache_clear()
    write_dump(tmp_path, streams, index)
    whole = read_all(tmp_path)[1]
    data = (tmp_path / DUMP).read_bytes()
    (tmp_path / DUMP).write_bytes(data[: int(len(data) * share)])
    rows = read_all(tmp_path)[1]
    good = [row for row in rows if isinstance(row, Candidate)]
    assert good == whole[: len(good)] and abs(len(good) / 200 - share) < 0.15
    assert [row.reason for row in rows[len(good) :]] == ["damaged_file"] and "cut off" in rows[-1].detail


def test_what_is_no_article_and_what_is_no_xml(tmp_path):
    wikipedia_dump.read_wiki.cache_clear()
    broken = page(3, "[[Datei:A.jpg|drei Wörter hier]]").replace("<revision>", "<revision")
    redirect = page(2, "[[Datei:A.jpg]]", redirect='<redirect title="B"/>')
    write_dump(tmp_path, [page(1, "[[Datei:A.jpg|x y z]]", namespace=6) + redirect + broken + article(4)], False)
    rows = read_all(tmp_path)[1]
    assert [isinstance(row, Rejected) for row in rows] == [True, False, False]
    assert "not readable as XML" in rows[0].detail


def test_what_can_be_no_image(tmp_path):
    wikipedia_dump.read_wiki.cache_clear()
    text = "[[File:A.webm|ein Film über Boote]] [[File:B.ogg|ein Ton]] [[File:C.svg|eine Karte]]"
    write_dump(tmp_path, [page(5, text)], False)
    assert [getattr(row, "reason", "") for row in read_all(tmp_path)[1]] == ["video", "unsupported_type", ""]
