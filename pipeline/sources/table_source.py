"""Sources whose rows are records of a table, in whatever form: `TableSource` reads them by the columns' names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Candidate, malformed
from pipeline.sources.file_kinds import PARQUET, TEXT
from pipeline.sources.paths import base_name
from pipeline.sources.readers import (
    LineStart,
    Row,
    open_range,
    open_seekable,
    open_source,
    parquet_records,
    pixels,
)
from pipeline.sources.source import LINES, FileRange, LineSource, S, StartsAt
from pipeline.sources.tables import (
    CAPTION,
    HEAD_BYTES,
    LINE_LAYOUTS,
    TSV,
    URL,
    Layout,
    Record,
    layout_of,
    table_records,
)
from pipeline.sources.two_columns import caption_and_url
from pipeline.sources.unpack import head_of

GROUPS = "groups"  # the kind of a file range of Parquet's row groups
PARQUET_RANGE_BYTES = 64 << 20  # of the columns as they are in memory


@dataclass(frozen=True)
class Columns:
    """The names, in lower case, that the columns of a table go by: the first of them that a file has is the one that is
    read. Of the captions, all that it has are the texts of a row, the best first."""

    url: tuple[str, ...] = (URL, "image_url", "image_urls", "img_url", "imageurl", "image_link", "downloadurl")
    captions: tuple[str, ...] = (CAPTION, "captions", "text", "texts", "alt_text", "alt", "title", "description")
    width: tuple[str, ...] = ("original_width", "width")
    height: tuple[str, ...] = ("original_height", "height")
    licence: tuple[str, ...] = ("licence", "license")
    page_url: tuple[str, ...] = ("page_url", "permalink")
    mime_type: tuple[str, ...] = ("mime_type", "mimetype")
    sha256: tuple[str, ...] = ("sha256",)
    further: tuple[str, ...] = ()  # that a source reads by itself

    @property
    def all(self) -> tuple[str, ...]:
        return (
            *self.url,
            *self.captions,
            *self.width,
            *self.height,
            *self.licence,
            *self.page_url,
            *self.mime_type,
            *self.sha256,
            *self.further,
        )

    def are_named(self, names: Sequence[str]) -> bool:
        """Whether names hold those of a URL and of a caption."""
        return not {*self.url}.isdisjoint(names) and not {*self.captions}.isdisjoint(names)


class RecordOrigin(NamedTuple):
    """Where a record stands."""

    source: str
    file: str
    row: int
    path: str = ""  # of the file, as a later stage finds it


def candidate_of(record: Record, columns: Columns, origin: RecordOrigin) -> Row:
    """The row that a record is."""
    values = record.values
    fault = record.fault or ("" if columns.are_named(list(values)) else _missing(values, columns))
    if fault:
        return malformed(origin.source, origin.file, origin.row, record.text, fault)
    texts = list(dict.fromkeys(text for name in columns.captions for text in _texts(values.get(name))))
    sha256 = _text(_first(values, columns.sha256)).lower()
    return Candidate(
        source=origin.source,
        file=origin.file,
        row=origin.row,
        url=_text(_first(values, columns.url)).strip(),
        fallback_urls=(),
        raw_caption=texts[0] if texts else "",
        width=pixels(_first(values, columns.width)),
        height=pixels(_first(values, columns.height)),
        licence=_text(_first(values, columns.licence)),
        page_url=_text(_first(values, columns.page_url)),
        mime_type=_text(_first(values, columns.mime_type)),
        expected_sha256=sha256 if len(sha256) == 64 else "",
        alternatives=tuple(texts[1:]),
    )


def _missing(values: Mapping[str, Any], columns: Columns) -> str:
    wanted = next(names for names in (columns.url, columns.captions) if {*names}.isdisjoint(values))
    return f"no column {' or '.join(wanted)} among {', '.join(values) or 'none'}"


def _first(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((values[name] for name in names if name in values), None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    """The texts of a cell, which may hold several; without empty ones."""
    cells = value if isinstance(value, list | tuple) else [value]
    return [text for text in cells if isinstance(text, str) and text.strip()]


class TableSource(LineSource[S]):
    """A source of tables. Text without a header, and what else `is_own` says, goes to `read` instead."""

    kinds = frozenset({TEXT, PARQUET})
    columns = Columns()
    lines_are_rows = True  # of the text that `read` reads

    def columns_of(self, settings: S) -> Columns:
        return self.columns

    def is_own(self, layout: Layout) -> bool:
        """Whether `read` reads a form itself: two fields a line."""
        return layout.kind == TSV and set(layout.columns) in (set(), {URL, CAPTION})

    def row_of(self, record: Record, origin: RecordOrigin, settings: S) -> Row:
        return candidate_of(record, self.columns_of(settings), origin)

    def split(self, path: str) -> list[FileRange]:
        if members := self.members(path):
            return [FileRange(self.name, path, member=member) for member in members]
        layout = self.layout(path, "", self.settings)  # names of columns that only options give make no difference here
        if layout.kind == PARQUET:
            ranges = [
                FileRange(source=self.name, path=path, kind=GROUPS, first=first, stop=stop)
                for first, stop in parquet_ranges(path)
            ]
            return ranges or [FileRange(self.name, path)]
        by_line = self.lines_are_rows if self.is_own(layout) else layout.kind in LINE_LAYOUTS
        return super().split(path) if by_line else [FileRange(self.name, path)]

    def layout(self, path: str, member: str, settings: S) -> Layout:
        with open_source(path, member) as stream:
            return layout_of(head_of(stream, HEAD_BYTES), self.columns_of(settings).are_named)

    def read_range(self, file_range: FileRange, settings: S, first_line_number: int = 0) -> Iterator[Row]:
        path, member = file_range.path, file_range.member
        layout = self.layout(path, member, settings)
        if self.is_own(layout):
            yield from super().read_range(file_range, settings, first_line_number)
            return
        first_row, records = 0, self._records(file_range, layout, first_line_number, settings)
        if file_range.kind == GROUPS:
            first_row = rows_before(path, file_range.first)
        elif first_line_number:
            first_row = first_line_number - bool(layout.columns)
        file = base_name(member or path)
        for row, record in enumerate(records, first_row):
            yield self.row_of(record, RecordOrigin(self.name, file, row, path), settings)

    def _records(self, file_range: FileRange, layout: Layout, first_line: int, settings: S) -> Iterator[Record]:
        path, member, ends = file_range.path, file_range.member, (file_range.first, file_range.stop)
        if layout.kind == PARQUET:
            groups = range(*ends) if file_range.kind == GROUPS else None
            columns = self.columns_of(settings)
            with open_seekable(path, member) as stream:
                required = (columns.url, columns.captions)
                for values, fault in parquet_records(stream, columns.all, required, groups):
                    yield Record(values, fault)
        elif file_range.kind == LINES:
            with open_range(path, *ends) as stream:
                yield from table_records(stream, layout, LineStart(first_line))
        else:
            with open_source(path, member) as stream:
                yield from table_records(stream, layout, LineStart())

    def read(self, stream: BinaryIO, file: str, start: LineStart, settings: S) -> Iterator[Row]:
        return caption_and_url(stream, file, self.name, False, start)

    def starts_at(self, file_range: FileRange) -> StartsAt:
        return StartsAt.GROUPS if file_range.kind == GROUPS else super().starts_at(file_range)

    def extent(self, file_range: FileRange) -> int:
        if file_range.kind != GROUPS:
            return super().extent(file_range)
        return rows_before(file_range.path, file_range.stop) - rows_before(file_range.path, file_range.first)


def parquet_ranges(path: str) -> list[tuple[int, int]]:
    """Ranges [first, stop) of a Parquet file's row groups, to be read side by side; [] for one that can't be read."""
    with open_seekable(path) as stream:
        try:
            metadata = pq.ParquetFile(stream).metadata
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            return []
    ranges, size = [0], 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= PARQUET_RANGE_BYTES:
            ranges.append(group + 1)
            size = 0
    if ranges[-1] != metadata.num_row_groups:
        ranges.append(metadata.num_row_groups)
    return list(itertools.pairwise(ranges))


def rows_before(path: str, group: int) -> int:
    """How many rows stand before a row group of a Parquet file."""
    with open_seekable(path) as stream:
        metadata = pq.ParquetFile(stream).metadata
        return sum(metadata.row_group(number).num_rows for number in range(group))
