"""Shared readers: files' bytes, unpacked, their lines, their tables.

Text is cut at the byte 0x0A alone, because captions hold U+2028, U+0085 and lone carriage returns."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Candidate, Damage, Rejected
from pipeline.sources.byte_ranges import RangeLines, bzip2_chunks, count_line_ends, plain_chunks
from pipeline.sources.file_kinds import SQLITE_MAGIC
from pipeline.sources.paths import CHUNK_BYTES, open_raw
from pipeline.sources.unpack import BZIP2, DAMAGE, GZIP, SEVEN_ZIP, UTF_16, XZ, ZIP, ZSTD, is_damage, seekable, unpacked

MAX_ROW_BYTES = 8 << 20
"""A longer row is rejected and not held in memory; the longest published ones, WIT's page texts, are far below."""
PARQUET_BATCH_ROWS = 1024
BZIP2_RATIO = 4  # about how much smaller a text is

Row = Candidate | Rejected
"""What a reader yields: one for each row of its file."""


class Line(NamedTuple):
    text: str  # without its line end; bytes that are not UTF-8 are U+FFFD
    fault: str  # "", or why this can't be a row


class LineStart(NamedTuple):
    """Where in its file a stream of lines starts: by default at the file's own start."""

    line: int = 0
    first_line: str = ""  # the file's own first line, if `line` is another


WHOLE_FILE = LineStart()


@contextlib.contextmanager
def open_source(path: str, member: str = "", from_tar: bool = True) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked; a plain file's stream can seek, unless its server sends it only whole. `member`: the
    name of a list in a zip of several. `from_tar`: whether the list in a compressed tar is meant, or the tar."""
    with open_raw(path) as raw, unpacked(raw, path, member, from_tar) as stream:
        yield stream


@contextlib.contextmanager
def open_seekable(path: str, member: str = "", from_tar: bool = True) -> Iterator[BinaryIO]:
    """The same; what can't seek is copied to the disk first."""
    with open_source(path, member, from_tar) as stream, seekable(stream) as copy:
        yield copy


def line_ranges(path: str, range_bytes: int) -> list[tuple[int, int]]:
    """Ranges of bytes in which a text file can be read side by side; [] for one that is read whole: a small one, one in
    a format that does not split (gzip, zip, UTF-16), one on a server that sends no parts."""
    with open_raw(path) as raw:
        magic = raw.peek(len(SQLITE_MAGIC))[: len(SQLITE_MAGIC)]
        if not raw.seekable() or magic.startswith((SQLITE_MAGIC, GZIP, ZSTD, XZ, ZIP, SEVEN_ZIP, *UTF_16)):
            return []
        size = raw.seek(0, os.SEEK_END)
    if magic.startswith(BZIP2):
        range_bytes //= BZIP2_RATIO
    if size <= range_bytes:
        return []
    ends = [size * number // -(-size // range_bytes) for number in range(-(-size // range_bytes) + 1)]
    return list(itertools.pairwise(ends))


@contextlib.contextmanager
def open_range(path: str, first: int, stop: int) -> Iterator[BinaryIO]:
    """The lines of one of the ranges of `line_ranges`."""
    with open_raw(path) as raw:
        chunks = bzip2_chunks if raw.peek(3)[:3] == BZIP2 else plain_chunks
        yield cast(BinaryIO, RangeLines(chunks(raw, first, stop), first == 0))  # `lines` needs no more of a stream


def count_range(path: str, first: int, stop: int) -> int:
    """How many lines end in a range."""
    with open_raw(path) as raw:
        chunks = bzip2_chunks if raw.peek(3)[:3] == BZIP2 else plain_chunks
        return count_line_ends(chunks(raw, first, stop))


def first_line(path: str, member: str = "") -> str:
    with open_source(path, member) as stream:
        return next((line.text for line in lines(stream)), "")


def lines(stream: BinaryIO) -> Iterator[Line]:
    """The lines of a text file. A byte-order mark, '\\r' before the line end and empty lines at the end of the file are
    not content. A compressed file that is cut off ends with a line at fault."""
    empty = 0  # empty lines that are content only if another line follows
    at_start = getattr(stream, "at_start", True)
    for number, (raw, fault) in enumerate(_split(stream)):
        if number == 0 and at_start:
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
    if empty and isinstance(stream, RangeLines) and stream.has_more_lines():
        for _ in range(empty):
            yield Line("", "")


def parquet_records(
    stream: BinaryIO, wanted: Sequence[str], required: Sequence[Sequence[str]], groups: Sequence[int] | None = None
) -> Iterator[tuple[dict[str, Any], str]]:
    """(record, "") for each row of a Parquet file, or of its row groups `groups`, of the wanted columns that it
    has, by their names in lower case; ({}, fault) once where it can't be read, or has no column of a required group.
    `stream` must be able to seek."""
    try:
        file = pq.ParquetFile(stream)
        names = {name.lower(): name for name in file.schema_arrow.names}
        for group in required:
            if not names.keys() & set(group):
                yield {}, f"no column {' or '.join(group)} among {', '.join(names)}"
                return
        columns = {name: names[name] for name in wanted if name in names}
        for batch in file.iter_batches(PARQUET_BATCH_ROWS, row_groups=groups, columns=list(columns.values())):
            values = [batch.column(column).to_pylist() for column in columns.values()]
            for record in zip(*values, strict=True):
                yield dict(zip(columns, record, strict=True)), ""
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk or the network, not the file's content
        yield {}, Damage(f"not readable as Parquet from here on: {' '.join(str(error).split())}")


def parquet_columns(stream: BinaryIO) -> list[str]:
    """The names of a Parquet file's columns; [] if it is none, of which `parquet_records` tells. The stream is at its
    beginning again."""
    try:
        return list(pq.ParquetFile(stream).schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return []
    finally:
        stream.seek(0)


def has_http_scheme(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def pixels(value: Any) -> int | None:
    """An image's side as a source writes it (number or text), None where it says nothing usable."""
    try:
        side = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(side) if 1 <= side < 2**31 else None


def field_count_error(found: int, expected: str) -> str:
    return f"{found} field{'s' * (found != 1)}, expected {expected}"


def _split(stream: BinaryIO) -> Iterator[tuple[bytes, str]]:
    """The lines as bytes, each with its fault."""
    # read1 hands out what is decoded before it raises at damage; read would lose the whole chunk
    read = stream.read1 if hasattr(stream, "read1") else stream.read
    tail, dropped = b"", 0  # the line that is not yet complete, and how many more bytes it had
    while True:
        try:
            chunk = read(CHUNK_BYTES)
        except DAMAGE as error:
            if not is_damage(error):
                raise
            yield tail, Damage(f"the compressed file is cut off or damaged from here on: {error}")
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
