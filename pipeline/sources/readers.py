"""Shared readers: files' bytes without the compression, their lines, their tables.

A file's first bytes tell its compression (gzip, bzip2, zstd or none), its ending does not: browsers unpack a .gz and
keep its name. Text is cut at the byte 0x0A alone, because captions hold U+2028, U+0085 and lone carriage returns."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import itertools
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Candidate, Rejected, malformed
from pipeline.sources.byte_ranges import RangeLines, bzip2_chunks, count_line_ends, plain_chunks
from pipeline.sources.paths import CHUNK_BYTES, open_raw

MAX_ROW_BYTES = 8 << 20
"""A longer row is rejected and not held in memory; the longest published ones, WIT's page texts, are far below."""
PARQUET_BATCH_ROWS = 1024
BZIP2_RATIO = 4  # about how much smaller a text is
SQLITE_MAGIC = b"SQLite format 3\0"

Row = Candidate | Rejected
"""What a reader yields: one for each row of its file."""


class Line(NamedTuple):
    text: str  # without its line end; bytes that are not UTF-8 are U+FFFD
    fault: str  # "", or why this can't be a row


class LineStart(NamedTuple):
    """Where in its file a stream of lines begins: by default at the beginning."""

    line: int = 0
    first_line: str = ""  # the file's own first line, if `line` is another


WHOLE_FILE = LineStart()


@contextlib.contextmanager
def open_source(path: str) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed; a plain file's stream can seek, unless its server sends it only whole."""
    with open_raw(path) as raw, _decompressed(raw) as stream:
        yield stream


@contextlib.contextmanager
def open_seekable(path: str) -> Iterator[BinaryIO]:
    """The same; what can't seek is copied to the disk first."""
    with open_source(path) as stream, contextlib.ExitStack() as stack:
        if not stream.seekable() or isinstance(stream, gzip.GzipFile | bz2.BZ2File):
            copy = stack.enter_context(tempfile.TemporaryFile())
            try:
                shutil.copyfileobj(stream, copy, CHUNK_BYTES)
            except (EOFError, zlib.error, OSError) as error:  # its reader finds that it has no end
                if not _is_damage(error):
                    raise
            copy.seek(0)
            stream = copy
        yield stream


def line_ranges(path: str, range_bytes: int) -> list[tuple[int, int]]:
    """Ranges of bytes in which a text file can be read side by side; [] for one that is read whole: a small one, one in
    a format that does not split (gzip, zstd), one on a server that sends no parts."""
    with open_raw(path) as raw:
        magic = raw.peek(len(SQLITE_MAGIC))[: len(SQLITE_MAGIC)]
        if not raw.seekable() or magic == SQLITE_MAGIC or magic.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
            return []
        size = raw.seek(0, os.SEEK_END)
    if magic.startswith(b"BZh"):
        range_bytes //= BZIP2_RATIO
    if size <= range_bytes:
        return []
    ends = [size * number // -(-size // range_bytes) for number in range(-(-size // range_bytes) + 1)]
    return list(itertools.pairwise(ends))


@contextlib.contextmanager
def open_range(path: str, first: int, stop: int) -> Iterator[RangeLines]:
    """The lines of one of the ranges of `line_ranges`."""
    with open_raw(path) as raw:
        chunks = bzip2_chunks if raw.peek(3)[:3] == b"BZh" else plain_chunks
        yield RangeLines(chunks(raw, first, stop), first == 0)


def count_range(path: str, first: int, stop: int) -> int:
    """How many lines end in a range."""
    with open_raw(path) as raw:
        chunks = bzip2_chunks if raw.peek(3)[:3] == b"BZh" else plain_chunks
        return count_line_ends(chunks(raw, first, stop))


def first_line(path: str) -> str:
    with open_source(path) as stream:
        return next((line.text for line in lines(stream)), "")


def lines(stream: BinaryIO) -> Iterator[Line]:
    """The lines of a text file. A byte-order mark, '\\r' before the line end and empty lines at the end of the file are
    not content. A compressed file that is cut off ends with a line at fault."""
    empty = 0  # empty lines that are content only if another line follows
    at_beginning = getattr(stream, "at_beginning", True)
    for number, (raw, fault) in enumerate(_split(stream)):
        if number == 0 and at_beginning:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        raw = raw.removesuffix(b"\r")
        if not raw and not fault:
            empty += 1
            continue
        for _ in range(empty):
            yield Line("", "")
        empty = 0
        if not fault and b"\0" in raw:
            fault = "the row holds a NUL byte"
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            text = raw.decode("utf-8", "replace")
            fault = fault or f"the row is not UTF-8: byte 0x{raw[error.start]:02x} at place {error.start}"
        yield Line(text, fault)
    if empty and isinstance(stream, RangeLines) and stream.follows():
        for _ in range(empty):
            yield Line("", "")


def caption_and_url(
    stream: BinaryIO, file: str, source: str, caption_first: bool, begin: LineStart = WHOLE_FILE
) -> Iterator[Row]:
    """Rows of two fields, split at the first tab; quote characters are text. `caption_first` is the published order: a
    header line `caption<TAB>url` or `url<TAB>caption` overrules it, and so does a row in which only one field is a
    URL."""
    row, header = begin.line, _header(begin.first_line)
    if header:
        row -= 1
        caption_first = header.startswith("caption")
    for number, line in enumerate(lines(stream), begin.line):
        if number == 0 and (header := _header(line.text)):
            caption_first = header.startswith("caption")
            continue
        yield _caption_and_url(line, file, row, source, caption_first)
        row += 1


def parquet_records(
    stream: BinaryIO, wanted: Sequence[str], required: Sequence[Sequence[str]]
) -> Iterator[tuple[dict[str, Any], str]]:
    """(record, "") for each row of a Parquet file, of those of the wanted columns that it has, by their names in lower
    case; ({}, fault) once where it can't be read, or has no column of a required group. `stream` must be able to
    seek."""
    try:
        file = pq.ParquetFile(stream)
        names = {name.lower(): name for name in file.schema_arrow.names}
        for group in required:
            if not names.keys() & set(group):
                yield {}, f"no column {' or '.join(group)} among {', '.join(names)}"
                return
        columns = {name: names[name] for name in wanted if name in names}
        for batch in file.iter_batches(PARQUET_BATCH_ROWS, columns=list(columns.values())):
            values = [batch.column(column).to_pylist() for column in columns.values()]
            for record in zip(*values, strict=True):
                yield dict(zip(columns, record, strict=True)), ""
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk or the network, not the file's content
        yield {}, f"not readable as Parquet from here on: {' '.join(str(error).split())}"


def parquet_columns(stream: BinaryIO) -> list[str]:
    """The names of a Parquet file's columns; [] if it is none, of which `parquet_records` tells. The stream is at its
    beginning again."""
    try:
        return pq.ParquetFile(stream).schema_arrow.names
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return []
    finally:
        stream.seek(0)


def has_http_scheme(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def pixels(value: object) -> int | None:
    """An image's side as a source writes it (number or text), None where it says nothing usable."""
    try:
        side = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(side) if 1 <= side < 2**31 else None


def field_count_fault(found: int, expected: str) -> str:
    return f"{found} field{'s' * (found != 1)}, expected {expected}"


def _header(text: str) -> str:
    """The line in lower case if it names the two columns, else ""."""
    text = text.strip().lower()
    return text if text in ("caption\turl", "url\tcaption") else ""


def _caption_and_url(line: Line, file: str, row: int, source: str, caption_first: bool) -> Row:
    if line.fault:
        return malformed(source, file, row, line.text, line.fault)
    first, tab, second = line.text.partition("\t")
    if not tab:
        return malformed(source, file, row, line.text, field_count_fault(1, "2"))
    if has_http_scheme(first) != has_http_scheme(second):
        caption_first = has_http_scheme(second)
    caption, url = (first, second) if caption_first else (second, first)
    if caption_first and url.count("\t") == 3:
        url = url.partition("\t")[0]  # the labels file: caption, URL, labels, machine ids, confidences
    if "\t" in url:
        return malformed(source, file, row, line.text, field_count_fault(line.text.count("\t") + 1, "2"))
    return Candidate(
        source=source,
        file=file,
        row=row,
        url=url.strip(),
        fallback_urls=(),
        raw_caption=caption,
        width=None,
        height=None,
        licence="",
        page_url="",
        mime_type="",
    )


def _split(stream: BinaryIO) -> Iterator[tuple[bytes, str]]:
    """The lines as bytes, each with its fault."""
    # read1 hands out what is decoded before it raises at damage; read would lose the whole chunk
    read = stream.read1 if hasattr(stream, "read1") else stream.read
    tail, dropped = b"", 0  # the line that is not yet complete, and how many more bytes it had
    while True:
        try:
            chunk = read(CHUNK_BYTES)
        except (EOFError, zlib.error, OSError) as error:
            if not _is_damage(error):
                raise
            yield tail, f"the compressed file is cut off or damaged from here on: {error}"
            return
        if not chunk:
            break
        first, *others = chunk.split(b"\n")
        if len(tail) + len(first) > MAX_ROW_BYTES:
            dropped += len(first)
        else:
            tail += first
        if others:
            yield tail, _length_fault(len(tail) + dropped)
            tail, dropped = others.pop(), 0
            for line in others:
                yield line, ""
    if tail:
        yield tail, _length_fault(len(tail) + dropped)


def _length_fault(size: int) -> str:
    return f"a row of {size} bytes, more than {MAX_ROW_BYTES}" if size > MAX_ROW_BYTES else ""


def _is_damage(error: Exception) -> bool:
    """Whether the bytes are bad, rather than the disk or the network, whose errors carry a number or a class."""
    return not isinstance(error, OSError) or (type(error) in (OSError, gzip.BadGzipFile) and error.errno is None)


def _decompressed(raw: io.BufferedReader) -> contextlib.AbstractContextManager[BinaryIO]:
    magic = raw.peek(4)[:4]
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if magic == b"\x28\xb5\x2f\xfd":
        # pyarrow's reader, because zstandard's takes a frame that is cut off for the end of the file
        return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    return raw
