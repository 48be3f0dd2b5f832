"""Wikipedia as WIT and as wit_base."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.records import Candidate, Rejected
from pipeline.sources import wit, wit_base
from pipeline.sources.file_ranges import FileRange, read_range
from pipeline.sources.table_source import RecordOrigin
from pipeline.sources.wit_captions import caption_texts
from pipeline.sources.wit_pages import page_candidate
from tests.support.narrowing import instance
from tests.support.source_rows import wit_file, wit_row


def rows(module, data: bytes, **settings):
    return list(module.read(io.BytesIO(data), "f", **settings))


def reasons(found):
    return [row.reason if isinstance(row, Rejected) else "" for row in found]


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("kaggle", [{}, {"caption_title_and_reference_description": "Weir [SEP] A weir"}])
@pytest.mark.parametrize("lineterminator", ["\n", "\r\n"])
def test_wit(header, kaggle, lineterminator):
    first = wit_row(caption_reference_description='The weir, "upper"\none', **kaggle)
    second = wit_row(image_url="", caption_alt_text_description="", **kaggle)
    found = rows(wit, wit_file(first, second, header=header, lineterminator=lineterminator))
    page = first["page_url"]
    assert found[0] == Candidate(
        "wit", "f", 0, first["image_url"], (), 'The weir, "upper"\none', 400, 300, "", page, "image/jpeg"
    )
    assert (found[1].row, found[1].url, found[1].raw_caption) == (1, "", "")


def test_wit_header_may_name_the_columns_in_any_order():
    row = wit_row(caption_reference_description="A weir")
    found = rows(wit, wit_file(dict(reversed(row.items()))))
    assert (found[0].raw_caption, found[0].width, found[0].height) == ("A weir", 400, 300)


def test_wit_row_with_an_open_quote_takes_no_other_row():
    rows_before = wit_file(wit_row(caption_reference_description="one"))
    data = (
        rows_before
        + b'en\thttps://en.wikipedia.org/wiki/B\t"never closed\nmore\n'
        + wit_file(
            wit_row(language="zh-TW", caption_reference_description="two"),
            wit_row(caption_reference_description="three"),
            header=False,
        )
    )
    found = rows(wit, data)
    assert reasons(found) == ["", "malformed_row", "", ""]
    assert [row.row for row in found] == [0, 1, 2, 3]
    assert "quote" in found[1].detail
    assert reasons(rows(wit, rows_before + b'en\t"open to the end\n')) == ["", "malformed_row"]


def test_wit_malformed_rows():
    good = wit_file(wit_row())
    found = rows(wit, good + b"a\tb\n\nen\t\0\n" + wit_file(wit_row(page_title="nul\0"), header=False) + b"en\thttps")
    assert reasons(found) == ["", *["malformed_row"] * 5]
    assert rows(wit, b"") == []


def test_wit_long_fields_and_odd_sizes():
    row = wit_row(context_page_description="x" * 1_000_000, original_height="nan", original_width="1e400")
    [found] = rows(wit, wit_file(row))
    assert (found.width, found.height) == (None, None)


@pytest.mark.parametrize(
    ("language", "reference", "attribution", "alt", "caption"),
    [
        ("en", "ref", "English: att", "alt", "ref"),
        ("en", "", "English: att", "alt", "att"),
        ("en", " ", "plain att", "alt", "plain att"),
        ("en", "", "", "alt", "alt"),
        ("en", "English: ref: one", "", "", "ref: one"),
        ("de", "Ein Wehr", "Deutsch: Ein Wehr English: A weir Français : Un barrage", "alt", "A weir"),
        ("de", "Ein Wehr", "Deutsch: Ein Wehr", "alt", "Ein Wehr"),
        ("de", "", "Deutsch: Ein Wehr", "", "Ein Wehr"),
        ("ja", "", "日本語: 堰\nEnglish: A weir", "", "A weir"),
        ("en", "", "", "", ""),
        ("en", "", "Note: a weir", "", "Note: a weir"),
    ],
)
def test_wit_caption(language, reference, attribution, alt, caption):
    assert next(iter(caption_texts(language, reference, attribution, alt)), "") == caption


# WIT base


PAGES = [
    dict(zip(wit_base.TEXTS, values, strict=True))
    for values in (("de", "d", "Ein Wehr", ""), ("en", "f", None, "alt"), ("en", "e", "A weir", ""))
]


@pytest.mark.parametrize("shape", ["records", "lists"])
def test_wit_base(tmp_path, shape):
    features: list[object] = [PAGES, PAGES[:1], []]
    if shape == "lists":
        features = [{name: [page[name] for page in pages] for name in PAGES[0]} for pages in (PAGES, PAGES[:1], [])]
    table = pa.table(
        {
            "image": [{"bytes": b"x", "path": "a.jpg"}] * 3,
            "image_url": ["http://a.example/1.jpg", "http://b", None],
            "original_height": [300, None, 1],
            "original_width": [400, 2, 1],
            "mime_type": ["image/jpeg"] * 3,
            "caption_attribution_description": ["att", "English: The weir Deutsch: Das Wehr", None],
            "wit_features": features,
        }
    )
    pq.write_table(table, tmp_path / "0.parquet")
    found = list(read_range(FileRange("wit-base", f"{tmp_path}/0.parquet")))
    assert found[0] == Candidate(
        "wit-base",
        "0.parquet",
        0,
        "http://a.example/1.jpg",
        (),
        "A weir",
        400,
        300,
        "",
        "e",
        "image/jpeg",
        stored_at=f"{tmp_path}/0.parquet#0",
        alternatives=("Ein Wehr", "att", "alt"),
    )
    assert [row.raw_caption for row in found] == ["A weir", "The weir", ""]
    assert (found[2].url, instance(found[1], Candidate).height) == ("", None)


@pytest.mark.parametrize(
    ("mime_type", "name", "url_end", "size"),
    [
        ("image/svg+xml", "Map.svg", "/thumb/a/ab/Map.svg/960px-Map.svg.png", (960, 720)),
        ("image/gif", "Map.gif", "/Map.gif", (400, 300)),
        ("image/tiff", "Map.tif", "/Map.tif", (400, 300)),
        ("image/jpeg", "Map.jpg", "/commons/a/ab/Map.jpg", (400, 300)),
        ("video/webm", "Map.webm", "/commons/a/ab/Map.webm", (400, 300)),
    ],
)
def test_wit_fetches_renderings(mime_type, name, url_end, size):
    row = wit_row(
        image_url=f"http://upload.wikimedia.org/wikipedia/commons/a/ab/{name}",
        mime_type=mime_type,
        caption_reference_description="A map of the town",
    )
    [found] = rows(wit, wit_file(row))
    assert found.raw_caption == "A map of the town"
    if mime_type in ("image/gif", "image/tiff"):
        assert "/thumb/" in found.url and "330px" in found.url and found.width == 330
    else:
        assert found.url.endswith(url_end) or "/thumb/" in found.url
        assert (found.width, found.height) == size


@pytest.mark.parametrize(
    ("language", "reference", "attribution", "alt", "expected"),
    [
        ("bs", "Most", "Bosanski: Stari most English: The old bridge", "", ["The old bridge", "Most", "Stari most"]),
        ("en", "Ref", "English: One Deutsch: Eins", "Alt", ["Ref", "One", "Eins", "Alt"]),
        ("de", "A bridge in spring", "", "", ["A bridge in spring"]),
        ("en", "", "Klingon: tlhIngan", "", ["Klingon: tlhIngan", "tlhIngan"]),
        ("en", "", "Left: the tower", "", ["Left: the tower"]),
        ("en", "Same", "Same", "Same", ["Same"]),
        (
            "fr",
            "",
            "Français : Un pont. English : A bridge. Español: Un puente.",
            "",
            ["A bridge.", "Un pont.", "Un puente."],
        ),
    ],
)
def test_the_texts_of_wit_in_their_order(language, reference, attribution, alt, expected):
    assert caption_texts(language, reference, attribution, alt) == expected


def test_the_captions_of_every_page_of_an_image():
    """Whatever language WIT says a page has."""
    pages = [("hr", "h", "Most u jesen", ""), ("de", "d", "The bridge in autumn", "a bridge")]
    record = {
        "image_url": "http://a", "caption_attribution_description": "Hrvatski: Most",
        "wit_features": [dict(zip(wit_base.TEXTS, page, strict=True)) for page in pages],
    }  # fmt: skip
    row = page_candidate(record, RecordOrigin("wit-base", "f", 0))
    assert [row.raw_caption, *row.alternatives] == ["Most u jesen", "The bridge in autumn", "Most", "a bridge"]
