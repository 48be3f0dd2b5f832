"""Files in any packing and from any place, and their lines."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import http.server
import io
import random
import threading
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from models.errors import UserError
from pipeline.records import Reason, Rejected
from pipeline.sources import cc3m, paths, readers
from pipeline.sources.file_ranges import FileRange, count_lines, file_ranges, first_line_number, read_range
from pipeline.sources.paths import base_name, expand
from pipeline.sources.readers import lines, open_source
from tests.support.narrowing import instance
from tests.support.repetition import examples


def rows(module, data: bytes, **settings):
    return list(module.read(io.BytesIO(data), "f", **settings))


def reasons(found):
    return [row.reason if isinstance(row, Rejected) else "" for row in found]


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


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
    text = b"".join(b"%d caption of an image\thttp://example.com/%d.jpg\n" % (n, n * 7919) for n in range(100_000))
    packed = PACKED[kind](text)
    path = tmp_path / "cut"
    path.write_bytes(packed[: len(packed) * 2 // 3])
    found = list(read_range(FileRange("cc3m", str(path))))
    assert len(found) > 10_000
    assert [row.row for row in found] == list(range(len(found)))
    assert set(reasons(found[:-1])) == {""}
    last = instance(found[-1], Rejected)
    assert last.reason == Reason.DAMAGED_FILE and "cut off" in last.detail


def test_a_disk_error_is_not_taken_for_damage():
    class Broken(io.BytesIO):
        def read1(self, size=-1):
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
@examples(40)
def test_lines_do_not_depend_on_how_the_bytes_come(parts, size):
    class Dripping(io.BytesIO):
        def read1(self, _=-1):
            return super().read(size)

    data = b"\n".join(parts)
    assert list(lines(Dripping(data))) == list(lines(io.BytesIO(data)))


def test_a_row_that_is_too_long_is_rejected_and_the_next_is_read(monkeypatch):
    monkeypatch.setattr(readers, "MAX_ROW_BYTES", 3 * paths.CHUNK_BYTES)
    data = b"a\thttp://a\n" + b"x" * (9 * paths.CHUNK_BYTES) + b"\thttp://b\nc\thttp://c\n"
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
    def copyfile(self, source, outputfile):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who asked for a part has heard enough
            super().copyfile(source, outputfile)

    def log_message(self, *_):
        pass


def test_http(server):
    folder, url = server
    (folder / "pairs.tsv.gz").write_bytes(gzip.compress(b"a cat\thttp://example.com/c.jpg\n"))
    [piece] = file_ranges("cc3m", f"{url}/pairs.tsv.gz?download=1")
    [row] = read_range(piece)
    assert (row.file, row.raw_caption) == ("pairs.tsv.gz", "a cat")
    with pytest.raises(UserError, match=r"none\.tsv: the server does not give this file \(HTTP 404\)"):
        file_ranges("cc3m", f"{url}/none.tsv")


class RangeHandler(QuietHandler):
    """Answers one range of bytes, as web servers do."""

    def do_GET(self):
        data = Path(self.translate_path(self.path)).read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = slice(int(first), min(int(last or len(data) - 1), len(data) - 1) + 1)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(part.stop - part.start))
        self.end_headers()
        self.wfile.write(data[part])


@pytest.mark.parametrize("place", ["server", "server of ranges", "memory"])
@pytest.mark.parametrize("kind", ["plain", "bz2", "gz"])
def test_the_same_rows_from_any_place(tmp_path, monkeypatch, place, kind):
    """A big file is read in ranges where its place gives parts of it."""
    monkeypatch.setattr("pipeline.sources.source.RANGE_BYTES", 40_000)
    dice = random.Random(0)
    data = PACKED[kind](
        b"".join(b"a boat %x\thttp://a.example/%d.jpg\n" % (dice.getrandbits(800), n) for n in range(1000))
    )
    (tmp_path / "list.tsv").write_bytes(data)

    def read(pattern):
        found = file_ranges("cc3m", pattern)
        before = [count_lines(piece) for piece in found if piece.kind == "lines"]
        return len(found), [
            row for piece in found for row in read_range(piece, first_line=first_line_number(piece, before))
        ]

    here, expected = read(f"{tmp_path}/list.tsv")
    assert [row.row for row in expected] == list(range(1000)) and (here > 3) == (kind != "gz")
    if place == "memory":
        fsspec.filesystem("memory").pipe("/lists/list.tsv", data)
        assert read("memory://lists/*.tsv") == (here, expected)
        return
    handler = functools.partial(RangeHandler if place == "server of ranges" else QuietHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        number, found = read(f"http://127.0.0.1:{httpd.server_port}/list.tsv")
        httpd.shutdown()
    assert found == expected and number == (here if place == "server of ranges" else 1)
