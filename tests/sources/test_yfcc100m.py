"""YFCC100M's layouts, captions and database."""

from __future__ import annotations

import io
import sqlite3
from urllib.parse import quote_plus

import pytest

from models.errors import UserError
from pipeline.filters import SelectConfig, filter_candidate
from pipeline.records import Rejected, row_key
from pipeline.sources import hosts, yfcc100m
from pipeline.sources.file_ranges import file_ranges, read_range
from pipeline.sources.registry import SOURCES
from pipeline.sources.yfcc100m import YfccSettings
from tests.support.narrowing import instance
from tests.support.source_rows import PHOTO, PHOTO_URL


def rows(module, data: bytes, **settings):
    return list(module.read(io.BytesIO(data), "f", **settings))


def reasons(found):
    return [row.reason if isinstance(row, Rejected) else "" for row in found]


PHOTO_25 = ["17", PHOTO[0], "4e2f7a26a1dfbf165a7e30bdabf7e72a", *PHOTO[1:]]
VIDEO = [*PHOTO[:22], "1"]


def yfcc_row(**changes):
    positions = {"photo": 0, "title": 6, "description": 7, "url": 14, "marker": 22}
    row = list(PHOTO)
    for name, value in changes.items():
        row[positions[name]] = value
    return row


def yfcc(*table, **settings):
    return rows(yfcc100m, "".join("\t".join(row) + "\n" for row in table).encode(), **settings)


def test_photo_hash():
    assert yfcc100m.photo_hash(PHOTO_URL) == "4e2f7a26a1dfbf165a7e30bdabf7e72a"
    # md5 of "a" is 0cc175b9c0f1b6a831c399e269772661: a byte below 16 is one digit
    assert yfcc100m.photo_hash("a") == "cc175b9c0f1b6a831c399e269772661"


@pytest.mark.parametrize(
    ("url", "today"),
    [
        (PHOTO_URL, "https://live.staticflickr.com/7205/6985418911_df7747990d.jpg"),
        ("http://farm1.static.flickr.com/1/2_3.jpg", "https://live.staticflickr.com/1/2_3.jpg"),
        ("https://live.staticflickr.com/1/2_3.jpg", "https://live.staticflickr.com/1/2_3.jpg"),
        ("http://farm8.staticflickr.example/1/2_3.jpg", "http://farm8.staticflickr.example/1/2_3.jpg"),
    ],
)
def test_where_a_photo_is_fetched_today(url, today):
    assert hosts.current_url(url) == today


def test_yfcc_layouts_say_the_same():
    [short], [long] = yfcc(PHOTO), yfcc(PHOTO_25)
    assert short == long
    assert short.raw_caption == "Harbour at dawn. Two boats & a <b>buoy</b>\nafter rain, 1+1"
    assert short.fallback_urls == (
        "https://multimedia-commons.s3-us-west-2.amazonaws.com/data/images/4e2/f7a/4e2f7a26a1dfbf165a7e30bdabf7e72a.jpg",
    )
    assert (short.url, short.width, short.licence, short.page_url) == (PHOTO_URL, None, PHOTO[15], PHOTO[13])


def test_yfcc_rows_that_are_no_photo():
    bad_id, bad_marker, latin = yfcc_row(photo="x"), yfcc_row(marker="jpg"), yfcc_row(title="caf%E9")
    found = yfcc(
        PHOTO, VIDEO, PHOTO[:22], [*PHOTO, "", ""], bad_id, bad_marker, latin, [*PHOTO_25, "x"], ["17", "1", "ab"]
    )
    assert reasons(found) == ["", "video", *["malformed_row"] * 4, "", *["malformed_row"] * 2]
    assert [row.row for row in found] == list(range(9))
    assert found[1].url == PHOTO_URL


@pytest.mark.parametrize(
    ("title", "description", "both", "title_first", "description_first"),
    [
        ("Old mill", "By the river", "Old mill. By the river", "Old mill", "By the river"),
        ("Why?", "By the river", "Why? By the river", "Why?", "By the river"),
        ("Old mill", "", "Old mill", "Old mill", "Old mill"),
        ("", "By the river", "By the river", "By the river", "By the river"),
        ("IMG_0520", "By the river", "By the river", "By the river", "By the river"),
        ("DSC01234.JPG", " ", "DSC01234.JPG", "DSC01234.JPG", "DSC01234.JPG"),
        ("Old Mill", "old mill by the river", "old mill by the river", "Old Mill", "old mill by the river"),
        ("", "", "", "", ""),
    ],
)
def test_yfcc_caption(title, description, both, title_first, description_first):
    expected = (both, title_first, description_first)
    assert tuple(yfcc100m.caption_from(title, description, form) for form in yfcc100m.CAPTIONS) == expected


def test_yfcc_caption_setting():
    [row] = yfcc(PHOTO, settings=YfccSettings("title"))
    assert row.raw_caption == "Harbour at dawn"


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "yfcc100m_dataset.sql"
    names = (
        "photoid, uid, unickname, datetaken, dateuploaded, capturedevice, title, description, usertags, machinetags, "
        "longitude, latitude, accuracy, pageurl, downloadurl, licensename, licenseurl, serverid, farmid, secret, "
        "secretoriginal, ext, marker"
    )
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE yfcc100m_dataset (note, {names})")  # a column of the user's own
        marks = ", ".join("?" * 24)
        for number in range(10):
            values = ["", int(PHOTO[0]) + number, *PHOTO[1:12], "", *PHOTO[13:22], number % 2]
            connection.execute(f"INSERT INTO yfcc100m_dataset VALUES ({marks})", values)
    connection.close()
    return path


def test_yfcc_sqlite_in_ranges(database, monkeypatch):
    monkeypatch.setattr("pipeline.sources.yfcc100m.SQLITE_ROWS", 4)
    found = file_ranges("yfcc100m", str(database))
    assert [(piece.first, piece.stop) for piece in found] == [(1, 5), (5, 9), (9, 11)]
    read = [row for piece in found for row in read_range(piece, {"yfcc100m": YfccSettings("title")})]
    assert [row.row for row in read] == list(range(10))
    assert reasons(read) == ["", "video"] * 5
    assert (read[0].url, read[0].raw_caption, read[0].file) == (PHOTO_URL, "Harbour at dawn", "yfcc100m_dataset.sql")


def test_yfcc_sqlite_damaged_or_without_the_table(tmp_path, database):
    with sqlite3.connect(tmp_path / "empty.sql") as connection:
        connection.execute("CREATE TABLE other (a)")
    connection.close()
    (tmp_path / "cut.sql").write_bytes(database.read_bytes()[:3000])
    for name in ("empty.sql", "cut.sql"):
        found = [row for piece in file_ranges("yfcc100m", str(tmp_path / name)) for row in read_range(piece)]
        assert reasons(found) == ["damaged_file"]
        assert "sqlite" in instance(found[0], Rejected).detail


def test_a_subset_is_looked_at_before_the_job(tmp_path):
    source = SOURCES["yfcc100m"]
    (tmp_path / "subset.tsv").write_text("line\tid\thash\n1\t123\tx\n2\tno number\tx\n")
    with pytest.raises(UserError, match=r"subset\.tsv, line 3: no photo id there"):
        source.prepare(yfcc100m.YfccSettings(subset=str(tmp_path / "subset.tsv")), str(tmp_path))
    with pytest.raises(UserError, match="nowhere"):
        source.prepare(yfcc100m.YfccSettings(subset="/nowhere"), str(tmp_path))
    assert source.prepare(yfcc100m.DEFAULT, str(tmp_path)) == yfcc100m.DEFAULT


@pytest.mark.parametrize(
    "title", ["Untitled", "(untitled)", "Untitled-1", "untitled 12", "No title", "Ohne Titel", "DSC01234", "--"]
)
def test_a_title_that_says_nothing_is_none(title):
    assert yfcc100m.caption_from(title, "Two boats on a lake") == "Two boats on a lake"
    assert yfcc100m.caption_from("Untitled film set", "Two boats") == "Untitled film set. Two boats"


ENGLISH, GERMAN = (
    "Two small boats are on the lake near the old harbour",
    "Zwei kleine Boote liegen auf dem See am alten Hafen",
)


@pytest.mark.parametrize(
    ("title", "description", "caption"),
    [
        ("A quiet morning at the lake", ENGLISH, f"A quiet morning at the lake. {ENGLISH}"),
        ("A quiet morning at the lake", GERMAN, "A quiet morning at the lake"),
        ("Ein stiller Morgen am Starnberger See", ENGLISH, ENGLISH),
        ("Ein stiller Morgen am See", GERMAN, None),
        ("Boats", ENGLISH, f"Boats. {ENGLISH}"),
        ("A quiet morning at the lake", "Taken on 12 May 2009", "A quiet morning at the lake"),
        ("Uploaded by Flickr Mobile", ENGLISH, ENGLISH),
    ],
)
def test_title_and_description_are_judged_each(title, description, caption):
    [row] = yfcc(yfcc_row(title=quote_plus(title), description=quote_plus(description)))
    outcome = filter_candidate(row, SelectConfig())
    assert getattr(outcome, "caption", None) == caption
    assert outcome.key == row_key("yfcc100m", row.url, outcome.raw_caption)
