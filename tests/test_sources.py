import bz2
import csv
import functools
import gzip
import http.server
import io
import sqlite3
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import UserError
from pipeline.records import Candidate, Reason, Rejected
from pipeline.sources import (
    RANK,
    SOURCES,
    Piece,
    SourceSettings,
    YfccSettings,
    cc3m,
    cc12m,
    img2dataset,
    pieces,
    rows_of,
    tables,
    wit,
    wit_base,
    yfcc100m,
)
from pipeline.sources.tables import base_name, expand, lines, open_source


def rows(module, data: bytes, **settings):
    return list(module.read(io.BytesIO(data), "f", **settings))


def reasons(found):
    return [row.reason if isinstance(row, Rejected) else "" for row in found]


# Files


PACKED = {"plain": bytes, "gz": gzip.compress, "bz2": bz2.compress, "zst": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("kind", PACKED)
def test_open_source_unpacks_by_content(tmp_path, kind):
    text = b"".join(b"line %d\n" % number for number in range(50_000))
    path = tmp_path / "named.tsv"  # no ending tells the compression
    path.write_bytes(PACKED[kind](text))
    with open_source(str(path)) as stream:
        assert [line.text for line in lines(stream)] == text.decode().split("\n")[:-1]


@pytest.mark.parametrize("kind", ["gz", "bz2"])
def test_several_streams_in_one_file(tmp_path, kind):
    path = tmp_path / "many"
    path.write_bytes(PACKED[kind](b"one\ntw") + PACKED[kind](b"o\nthree"))
    with open_source(str(path)) as stream:
        assert [line.text for line in lines(stream)] == ["one", "two", "three"]


@pytest.mark.parametrize("kind", ["gz", "bz2", "zst"])
def test_a_file_that_is_cut_off_gives_its_rows_and_one_reject(tmp_path, kind):
    text = b"".join(b"%d caption of a picture\thttp://example.com/%d.jpg\n" % (n, n * 7919) for n in range(100_000))
    packed = PACKED[kind](text)
    path = tmp_path / "cut"
    path.write_bytes(packed[: len(packed) * 2 // 3])
    found = list(rows_of(Piece("cc3m", str(path))))
    assert len(found) > 10_000
    assert [row.row for row in found] == list(range(len(found)))
    assert set(reasons(found[:-1])) == {""}
    assert found[-1].reason == Reason.MALFORMED_ROW and "cut off" in found[-1].detail


def test_a_disk_error_is_not_taken_for_damage():
    class Broken(io.RawIOBase):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        list(lines(Broken()))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        (b"a\n\nb\n\n\n", ["a", "", "b"]),
        ("a\u2028b\u0085c\rd\x0be\n".encode(), ["a\u2028b\u0085c\rd\x0be"]),
        (b"\tx\t\n", ["\tx\t"]),
        (b"caf\xe9\n", ["caf\ufffd"]),
    ],
)
def test_lines(data, expected):
    assert [line.text for line in lines(io.BytesIO(data))] == expected


@given(st.lists(st.binary(max_size=40).filter(lambda part: b"\n" not in part and b"\r" not in part)), st.integers(1, 9))
@settings(max_examples=100)
def test_lines_do_not_depend_on_how_the_bytes_come(parts, size):
    class Dripping(io.BytesIO):
        def read1(self, _):
            return super().read(size)

    data = b"\n".join(parts)
    assert list(lines(Dripping(data))) == list(lines(io.BytesIO(data)))


def test_a_row_that_is_too_long_is_rejected_and_the_next_is_read(monkeypatch):
    monkeypatch.setattr(tables, "MAX_ROW_BYTES", 3 * tables.CHUNK_BYTES)
    data = b"a\thttp://a\n" + b"x" * (9 * tables.CHUNK_BYTES) + b"\thttp://b\nc\thttp://c\n"
    found = rows(cc3m, data)
    assert reasons(found) == ["", "malformed_row", ""]
    assert "bytes" in found[1].detail and found[2].row == 2


def test_expand(tmp_path):
    for name in ("b.tsv", "a.tsv", "c[1].tsv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "d.tsv").mkdir()
    assert [base_name(path) for path in expand(f"{tmp_path}/*.tsv")] == ["a.tsv", "b.tsv", "c[1].tsv"]
    assert [base_name(path) for path in expand(f"{tmp_path}/c[1].tsv")] == ["c[1].tsv"]
    for pattern in (f"{tmp_path}/none.tsv", f"{tmp_path}/*.csv", str(tmp_path), "nosuchscheme://bucket/file"):
        with pytest.raises(UserError) as error:
            expand(pattern)
        assert pattern in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"none\.tsv"), open_source(f"{tmp_path}/none.tsv"):
        pass


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    handler = functools.partial(QuietHandler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield tmp_path / "served", f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_http(server):
    folder, url = server
    (folder / "pairs.tsv.gz").write_bytes(gzip.compress(b"a cat\thttp://example.com/c.jpg\n"))
    [piece] = pieces("cc3m", f"{url}/pairs.tsv.gz?download=1")
    [row] = rows_of(piece)
    assert (row.file, row.raw_caption) == ("pairs.tsv.gz", "a cat")
    with pytest.raises(UserError, match=r"none\.tsv"):
        pieces("cc3m", f"{url}/none.tsv")


def test_registry(tmp_path):
    assert list(SOURCES) == list(RANK) == [
        "cc3m", "cc12m", "yfcc100m", "wit", "wit-base", "wikipedia-dump", "img2dataset"]
    (tmp_path / "x").write_text("x")
    with pytest.raises(UserError, match="choose one of cc3m"):
        pieces("laion", f"{tmp_path}/x")


# Conceptual Captions


@pytest.mark.parametrize(
    ("module", "line", "caption", "url"),
    [
        (cc3m, 'the sign says " stop " .\thttp://a.example/1.jpg', 'the sign says " stop " .', "http://a.example/1.jpg"),
        (cc12m, "https://a.example/1.jpg\t<PERSON> at a fair", "<PERSON> at a fair", "https://a.example/1.jpg"),
        (cc12m, 'http://a.example/1,2.jpg\t"Half a quote, commas', '"Half a quote, commas', "http://a.example/1,2.jpg"),
        (cc12m, "http://a.example/1.jpg\twith a\ttab", "with a\ttab", "http://a.example/1.jpg"),
        (cc3m, "HTTP://a.example/1.jpg\ta reversed row", "a reversed row", "HTTP://a.example/1.jpg"),
        (cc12m, "a reversed row\thttp://a.example/1.jpg", "a reversed row", "http://a.example/1.jpg"),
        (cc3m, "http://b.example/\thttp://a.example/1.jpg", "http://b.example/", "http://a.example/1.jpg"),
        (cc3m, "no link\tftp:/nowhere", "no link", "ftp:/nowhere"),
        (cc3m, "no link\t", "no link", ""),
        (cc3m, "a boat .\thttp://a.example/1.jpg\tboat,sea\t/m/1,/m/2\t0.9,0.8", "a boat .", "http://a.example/1.jpg"),
    ],
)
def test_conceptual_captions(module, line, caption, url):
    [row] = rows(module, line.encode() + b"\n")
    assert row == Candidate(module.NAME, "f", 0, url, (), caption, None, None, "", "", "")


@pytest.mark.parametrize("header", ["caption\turl", "url\tcaption", "Caption\tURL"])
def test_a_header_tells_the_order_and_is_no_row(header):
    found = rows(cc3m, f"{header}\r\none\ttwo\r\nthree\tfour\r\n".encode())
    assert [row.row for row in found] == [0, 1]
    assert found[0].url == ("two" if header.lower().startswith("caption") else "one")


def test_malformed_rows_are_counted_and_numbered():
    found = rows(cc3m, b"only one field\na\thttp://a\n\nnul\0byte\thttp://b\nq\thttp://c\textra\nz\thttp://z\n")
    assert reasons(found) == ["malformed_row", "", "malformed_row", "malformed_row", "malformed_row", ""]
    assert [row.row for row in found] == list(range(6))
    assert found[0].detail == "1 field, expected 2"
    assert len({row.key for row in found if isinstance(row, Rejected)}) == 4


# YFCC100M

PHOTO_URL = "http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg"
PHOTO = [
    "6985418911", "4e2f7a26@N00", "jo+doe", "2012-03-15 10:11:12.0", "1331800000", "Canon+EOS", "Harbour+at+dawn",
    "Two+boats+%26+a+%3Cb%3Ebuoy%3C%2Fb%3E%0Aafter+rain%2C+1%2B1", "sea,grey+sky", "", "-1.5", "50.1", "16",
    "http://www.flickr.com/photos/4e2f7a26@N00/6985418911/", PHOTO_URL, "Attribution License",
    "http://creativecommons.org/licenses/by/2.0/", "7205", "8", "df7747990d", "0123456789", "jpg", "0",
]  # fmt: skip
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


@pytest.mark.parametrize(("url", "today"), [
    (PHOTO_URL, "https://live.staticflickr.com/7205/6985418911_df7747990d.jpg"),
    ("http://farm1.static.flickr.com/1/2_3.jpg", "https://live.staticflickr.com/1/2_3.jpg"),
    ("https://live.staticflickr.com/1/2_3.jpg", "https://live.staticflickr.com/1/2_3.jpg"),
    ("http://farm8.staticflickr.example/1/2_3.jpg", "http://farm8.staticflickr.example/1/2_3.jpg"),
])
def test_where_a_photo_is_fetched_today(url, today):
    assert yfcc100m.live_url(url) == today


def test_yfcc_layouts_say_the_same():
    [short], [long] = yfcc(PHOTO), yfcc(PHOTO_25)
    assert short == long
    assert short.raw_caption == "Harbour at dawn. Two boats & a <b>buoy</b>\nafter rain, 1+1"
    assert short.fallback_urls == (
        "https://multimedia-commons.s3-us-west-2.amazonaws.com/data/images/4e2/f7a/4e2f7a26a1dfbf165a7e30bdabf7e72a.jpg",
    )
    assert (short.url, short.width, short.licence, short.page_url) == (PHOTO_URL, None, PHOTO[15], PHOTO[13])


def test_yfcc_rows_that_are_no_photo():
    bad_id, bad_marker = yfcc_row(photo="x"), yfcc_row(marker="jpg")
    found = yfcc(PHOTO, VIDEO, PHOTO[:22], [*PHOTO, "", ""], bad_id, bad_marker, [*PHOTO_25, "x"], ["17", "1", "ab"])
    assert reasons(found) == ["", "video", *["malformed_row"] * 6]
    assert [row.row for row in found] == list(range(8))
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
        connection.execute(f"CREATE TABLE yfcc100m_dataset ({names})")
        marks = ", ".join("?" * 23)
        for number in range(10):
            values = [int(PHOTO[0]) + number, *PHOTO[1:12], "", *PHOTO[13:22], number % 2]
            connection.execute(f"INSERT INTO yfcc100m_dataset VALUES ({marks})", values)
    connection.close()
    return path


def test_yfcc_sqlite_in_ranges(database, monkeypatch):
    monkeypatch.setattr("pipeline.sources.SQLITE_ROWS", 4)
    found = pieces("yfcc100m", str(database))
    assert [(piece.first, piece.stop) for piece in found] == [(1, 5), (5, 9), (9, 11)]
    read = [row for piece in found for row in rows_of(piece, SourceSettings(YfccSettings("title")))]
    assert [row.row for row in read] == list(range(10))
    assert reasons(read) == ["", "video"] * 5
    assert (read[0].url, read[0].raw_caption, read[0].file) == (PHOTO_URL, "Harbour at dawn", "yfcc100m_dataset.sql")


def test_yfcc_sqlite_damaged_or_without_the_table(tmp_path, database):
    with sqlite3.connect(tmp_path / "empty.sql") as connection:
        connection.execute("CREATE TABLE other (a)")
    connection.close()
    (tmp_path / "cut.sql").write_bytes(database.read_bytes()[:3000])
    for name in ("empty.sql", "cut.sql"):
        found = [row for piece in pieces("yfcc100m", str(tmp_path / name)) for row in rows_of(piece)]
        assert reasons(found) == ["malformed_row"]
        assert "sqlite" in found[0].detail


# WIT


def wit_row(**changes):
    values = dict.fromkeys(wit.COLUMNS[:17], "")
    values |= {
        "language": "en", "page_url": "https://en.wikipedia.org/wiki/Weir", "original_height": "300",
        "original_width": "400", "image_url": "http://upload.wikimedia.org/wikipedia/commons/a/ab/Weir.jpg",
        "mime_type": "image/jpeg", "is_main_image": "true", "context_page_description": 'A weir, or "low dam".\n\nIt',
    }  # fmt: skip
    return values | changes


def wit_file(*table, header=True, lineterminator="\n"):
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator=lineterminator)
    if header:
        writer.writerow(table[0])
    writer.writerows(row.values() for row in table)
    return text.getvalue().encode()


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
    data = rows_before + b'en\thttps://en.wikipedia.org/wiki/B\t"never closed\nmore\n' + wit_file(
        wit_row(caption_reference_description="two"), wit_row(caption_reference_description="three"), header=False
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
    assert wit.caption_from(language, reference, attribution, alt) == caption


# WIT base


PAGES = [
    dict(zip(wit_base.TEXTS, values, strict=True))
    for values in (("de", "d", "Ein Wehr", ""), ("en", "f", None, "alt"), ("en", "e", "A weir", ""))
]


@pytest.mark.parametrize("shape", ["records", "lists"])
def test_wit_base(tmp_path, shape):
    features = [PAGES, PAGES[:1], []]
    if shape == "lists":
        features = [{name: [page[name] for page in pages] for name in PAGES[0]} for pages in features]
    table = pa.table({
        "image": [{"bytes": b"x", "path": "a.jpg"}] * 3, "image_url": ["http://a.example/1.jpg", "http://b", None],
        "original_height": [300, None, 1], "original_width": [400, 2, 1], "mime_type": ["image/jpeg"] * 3,
        "caption_attribution_description": ["att", "English: The weir Deutsch: Das Wehr", None],
        "wit_features": features,
    })  # fmt: skip
    pq.write_table(table, tmp_path / "0.parquet")
    found = list(rows_of(Piece("wit-base", f"{tmp_path}/0.parquet")))
    assert found[0] == Candidate(
        "wit-base", "0.parquet", 0, "http://a.example/1.jpg", (), "A weir", 400, 300, "", "e", "image/jpeg",
        stored_at=f"{tmp_path}/0.parquet#0",
    )
    assert [row.raw_caption for row in found] == ["A weir", "The weir", ""]
    assert (found[2].url, found[1].height) == ("", None)


# img2dataset


def test_img2dataset(tmp_path):
    table = pa.table({
        "key": ["000000000", "000000001"], "url": ["http://a.example/1.jpg", None], "caption": ["A barn", None],
        "status": ["success", "failed_to_download"], "width": [256, None], "original_width": [640, None],
        "original_height": [480, None],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "00000.parquet")
    (tmp_path / "00000.tar").write_bytes(b"")
    for pattern in (tmp_path, tmp_path / "*.parquet", tmp_path / "00000.tar", tmp_path / "*.tar"):
        [piece] = pieces("img2dataset", str(pattern))
        first, second = rows_of(piece)
        assert first == Candidate(
            "img2dataset", "00000.parquet", 0, "http://a.example/1.jpg", (), "A barn", 640, 480, "", "", "",
            stored_at=f"{tmp_path}/00000.tar#000000000",
        )
        assert (second.stored_at, second.row, second.url, second.raw_caption, second.width) == ("", 1, "", "", None)


def test_img2dataset_other_parquet(tmp_path):
    pq.write_table(pa.table({"URL": ["http://a"], "TEXT": ["A barn"]}), tmp_path / "laion.parquet")
    pq.write_table(pa.table({"URL": [b"\xff"], "TEXT": [3]}), tmp_path / "types.parquet")
    pq.write_table(pa.table({"link": ["http://a"]}), tmp_path / "no.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "no.parquet").read_bytes()[:50])
    [row] = rows_of(Piece("img2dataset", f"{tmp_path}/laion.parquet"))
    assert (row.url, row.raw_caption) == ("http://a", "A barn")
    faults = {"types": "not text", "no": "no column url or image_url among link", "cut": "not readable as Parquet"}
    for name, detail in faults.items():
        [row] = rows_of(Piece("img2dataset", f"{tmp_path}/{name}.parquet"))
        assert row.reason == Reason.MALFORMED_ROW and detail in row.detail


# Whatever the bytes are


@given(
    st.sampled_from([cc3m, cc12m, yfcc100m, wit, wit_base, img2dataset]),
    st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([
        b"\n", b"\t", b'"', b"\r\n", b"\0", b"http://a.example/x.jpg", "\t".join(PHOTO).encode(), b"\xff\xfe",
        wit_file(wit_row()), b"caption\turl\n",
    ]))),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_readers_never_raise_and_number_every_row(module, parts):
    found = rows(module, b"".join(parts))
    assert [row.row for row in found] == list(range(len(found)))
    assert all(isinstance(row, (Candidate, Rejected)) for row in found)
