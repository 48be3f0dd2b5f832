"""Tables in any form in which lists circulate, as records: values by the names of their columns, in lower case.

`layout_of` tells the form by the first bytes: Parquet; JSON, one record a line or one document; text with a header, or
without one. A document is a list of records, one of RedCaps' form (`annotations`), or columns side by side as SBU and
pandas write them. Text without a header has its columns named by what its fields hold: see `name_fields`."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from pipeline.records import Damage
from pipeline.sources.file_kinds import PARQUET
from pipeline.sources.readers import MAX_ROW_BYTES, Line, LineStart, has_http_scheme, lines
from pipeline.sources.unpack import DAMAGE, is_damage

TSV, CSV, JSON, JSON_LINES = "TSV", "CSV", "JSON", "JSON lines"
LINE_LAYOUTS = (TSV, JSON_LINES)
"""Forms of which a line is a row, so that a big file is read in ranges."""
DELIMITERS = "\t,|;"
HEAD_BYTES = 1 << 20
"""Bytes that `layout_of` reads: a line of WIT's JSON, which holds an image, is shorter."""
URL, CAPTION = "url", "caption"
"""The names of the columns of text that has no header."""


class Layout(NamedTuple):
    """The form of a table."""

    kind: str  # PARQUET or one of those above
    delimiter: str = ""
    columns: tuple[str, ...] = ()  # of a header, in lower case; () if there is none


class Record(NamedTuple):
    """A row of a table."""

    values: Mapping[str, Any]  # by the columns' names in lower case
    fault: str = ""  # or why this can't be a row
    text: str = ""  # the row itself, as far as it is known, for the reject


def layout_of(head: bytes, is_header: Callable[[Sequence[str]], bool]) -> Layout:
    """The form of a table by its first bytes; `is_header` tells names of columns from values."""
    if head.startswith(b"PAR1"):
        return Layout(PARQUET)
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    first, _, rest = text.partition("\n")
    if (start := text.lstrip()[:1]) and start in "[{" and (kind := _json_kind(start, first, rest)):
        return Layout(kind)
    for delimiter in DELIMITERS:
        columns = tuple(name.strip().lower() for name in split_row(first.rstrip("\r"), delimiter))
        if len(columns) > 1 and is_header(columns):
            return Layout(TSV if delimiter == "\t" else CSV, delimiter, columns)
    for delimiter in DELIMITERS:
        fields = split_row(first.rstrip("\r"), delimiter)
        if len(fields) > 1 and any(map(has_http_scheme, fields)):
            return Layout(TSV if delimiter == "\t" else CSV, delimiter)
    return Layout(TSV, "\t")


def _json_kind(start: str, first: str, rest: str) -> str:
    """JSON, JSON_LINES, or "" for a text that only begins like them."""
    if start == "[":
        return JSON if first.lstrip()[1:2] in ("", "{", "[", " ", "\r") else ""
    try:
        record = json.loads(first)
    except ValueError:  # a document over several lines, or on one that is longer than what was read
        return JSON if first.strip() == "{" or first.lstrip()[1:].lstrip()[:1] == '"' else ""
    except RecursionError:
        return ""
    nested = isinstance(record, dict) and all(isinstance(value, list | dict) for value in record.values())
    return JSON if nested and not rest.strip() else JSON_LINES


def split_row(line: str, delimiter: str) -> list[str]:
    """The fields of a line as CSV has them; fields that CSV can't read are split at the delimiter."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return line.split(delimiter)


def table_records(stream: BinaryIO, layout: Layout, start: LineStart) -> Iterator[Record]:
    """The records of any form but Parquet, whose stream need not seek. A header is no record."""
    if layout.kind == JSON:
        return _document_records(stream)
    if layout.kind == JSON_LINES:
        return map(_json_record, lines(stream))
    if layout.kind == TSV:
        found = lines(stream)
        skipped = bool(layout.columns) and not start.line
        return (_line_record(line, layout) for line in itertools.islice(found, skipped, None))
    rows = csv_rows(lines(stream), layout.delimiter)
    return (_csv_record(row, layout) for row in itertools.islice(rows, bool(layout.columns), None))


# Text


class CsvRow(NamedTuple):
    fields: list[str]
    fault: str  # "", or why these can't be a row


def csv_rows(
    source: Iterator[Line], delimiter: str, is_row_start: Callable[[str], Any] = lambda text: False
) -> Iterator[CsvRow]:
    """Rows of CSV, which may span lines. Where a line inside quotes begins as only a row can, the open row ends, so
    that a quote that is never closed takes no more than its own row."""
    # csv's limit is the whole process's and 131,072 by default, less than a page's text
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    feed = _RowLines(source, is_row_start)
    while feed.more():
        reader = csv.reader(feed, delimiter=delimiter)
        while feed.start_row():
            try:
                yield CsvRow(next(reader), feed.fault)
            except csv.Error as error:
                yield CsvRow([], feed.fault or str(error))
            if feed.cut:
                break  # this reader has been told that its input ended


class _RowLines:
    """Lines for a csv reader that know where a row began."""

    def __init__(self, source: Iterator[Line], is_row_start: Callable[[str], Any]):
        self._source, self._is_row_start = source, is_row_start
        self._next = next(source, None)
        self._inside = False  # a row's first line has been handed out
        self._size = 0  # characters of the row so far
        self.fault = ""  # of the lines of this row
        self.cut = False  # the row was ended although its quotes are open

    def more(self) -> bool:
        return self._next is not None

    def start_row(self) -> bool:
        self._inside, self._size, self.fault, self.cut = False, 0, "", False
        return self.more()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._next
        ends = line is None or self._size > MAX_ROW_BYTES or (self._inside and self._is_row_start(line.text))
        if line is None or ends:
            self.cut = True
            self.fault = self.fault or "a quote is not closed"
            raise StopIteration
        self._inside = True
        self._size += len(line.text)
        self.fault = self.fault or line.fault
        self._next = next(self._source, None)
        # csv refuses NUL before Python 3.11; the fault tells of it
        return line.text.replace("\0", "\ufffd") + "\n"


def _csv_record(row: CsvRow, layout: Layout) -> Record:
    text = layout.delimiter.join(row.fields)
    if row.fault:
        return Record({}, row.fault, text)
    if not layout.columns:
        return name_fields(row.fields, text)
    return _named(row.fields, layout.columns, text)


def _line_record(line: Line, layout: Layout) -> Record:
    if line.fault:
        return Record({}, line.fault, line.text)
    fields = unquoted(line.text.split(layout.delimiter))
    return _named(fields, layout.columns, line.text) if layout.columns else name_fields(fields, line.text)


def _named(fields: Sequence[str], columns: Sequence[str], text: str) -> Record:
    while len(fields) > len(columns) and not fields[-1]:
        fields = fields[:-1]  # a delimiter at the end of each line
    if len(fields) != len(columns):
        return Record({}, f"{len(fields)} field{'s' * (len(fields) != 1)}, expected {len(columns)}", text)
    return Record(dict(zip(columns, fields, strict=True)), "", text)


def unquoted(fields: Sequence[str]) -> list[str]:
    """Fields as pandas meant them, in text whose quotes may be content: those around a URL are none, and then all
    fields are quoted; else a field is where the quotes inside of it are doubled."""
    quoted = [len(field) > 1 and field[0] == field[-1] == '"' for field in fields]
    all_quoted = any(is_quoted and has_http_scheme(field[1:]) for field, is_quoted in zip(fields, quoted, strict=True))
    return [
        _without_quotes(field, all_quoted) if is_quoted else field
        for field, is_quoted in zip(fields, quoted, strict=True)
    ]


def _without_quotes(field: str, surely: bool) -> str:
    inner = field[1:-1]
    doubled = '""' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if surely or doubled else field


def name_fields(fields: Sequence[str], text: str) -> Record:
    """A record of text without a header: the URL is the field that is one, the caption the other; a number before them
    is pandas' index, and an empty field behind them a delimiter too many."""
    parts = list(fields)
    while len(parts) > 2 and not parts[-1].strip():
        parts.pop()
    if len(parts) == 3 and parts[0].strip().isdecimal():
        parts = parts[1:]
    urls = [has_http_scheme(part.strip()) for part in parts]
    if len(parts) != 2 or not any(urls):
        return Record({}, f"{len(fields)} field{'s' * (len(fields) != 1)}, expected a URL and a caption", text)
    url, caption = parts if urls[0] else reversed(parts)
    return Record({URL: url, CAPTION: caption}, "", text)


# JSON


def _json_record(line: Line) -> Record:
    if line.fault:
        return Record({}, line.fault, line.text)
    try:
        record = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        return Record({}, f"not readable as JSON: {error}", line.text)
    return _of_object(record, line.text)


def _of_object(record: Any, text: str = "") -> Record:
    if not isinstance(record, dict):
        return Record({}, "not an object of JSON", text or str(record)[:200])
    return Record({str(name).lower(): value for name, value in record.items()}, "", text)


def _document_records(stream: BinaryIO) -> Iterator[Record]:
    """The records of one document, which is held in memory."""
    try:
        document = json.loads(stream.read())
    except DAMAGE as error:
        if not is_damage(error):
            raise
        yield Record({}, Damage(f"the compressed file is cut off or damaged from here on: {error}"))
    except (ValueError, RecursionError) as error:
        yield Record({}, Damage(f"not readable as JSON from here on: {error}"))
    else:
        yield from map(_of_object, records_in(document))


def records_in(document: Any) -> Iterable[Any]:
    """The records of a document, in any of its forms."""
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        return [document]
    for name in ("annotations", "data", "rows"):
        if isinstance(rows := document.get(name), list):
            return rows
    columns = list(document.values())
    if columns and all(isinstance(column, list) for column in columns):
        return _side_by_side(document, range(max(map(len, columns))))
    if columns and all(isinstance(column, dict) for column in columns):
        by_row = all(all(map(str.isdecimal, column)) for column in columns)
        return _side_by_side(document, columns[0]) if by_row else columns
    return [document]


def _side_by_side(columns: Mapping[str, Any], rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Records of columns that are lists of one length, or pandas' objects by the row's number."""
    for row in rows:
        try:
            yield {name: values[row] for name, values in columns.items()}
        except (IndexError, KeyError):
            yield {}
