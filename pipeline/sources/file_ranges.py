"""The files of a source and their parts: `file_ranges` lists what a pattern has to read, `read_range` reads one.

Both work without Beam. A range yields one element for each row of the published file. Rows are numbered from 0 in the
file's order, a recognised header line is not a row, and bad data is a `Rejected`, never an exception."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple

from apache_beam.coders import RowCoder, registry

from models.errors import UserError
from pipeline.sources.readers import Row, count_range
from pipeline.sources.registry import DEFAULTS, SOURCES, SourceSettings
from pipeline.sources.source import FileRange as FileRange


def file_ranges(name: str, pattern: str) -> list[FileRange]:
    """What a pattern of a source has to read, in the order of the files' names.

    Raises UserError for an unknown source and for a pattern that matches no file.
    """
    if name not in SOURCES:
        raise UserError(f"no source is called {name}: choose one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    return [file_range for path in source.files(pattern) for file_range in source.split(path)]


def read_range(file_range: FileRange, settings: SourceSettings = DEFAULTS, first_line: int = 0) -> Iterator[Row]:
    """The rows of a range. `first_line` is the number of its first line in the file; see `first_line_number`."""
    source = SOURCES[file_range.source]
    rows = source.read_range(file_range, settings.get(source.name, source.settings), first_line)
    return itertools.islice(rows, file_range.rows or None)


def range_bytes(file_range: FileRange) -> int:
    """About how many bytes of its file a range takes, for the progress line; 0 if that is unknown. Ranges of a sqlite
    file are measured in row ids, those of Parquet in groups of rows."""
    if file_range.member:
        return 0
    if file_range.stop:
        return file_range.stop - file_range.first
    return os.path.getsize(file_range.path) if os.path.exists(file_range.path) else 0


class LineCount(NamedTuple):
    """How many lines end in a range of a file."""

    path: str
    first: int
    lines: int


registry.register_coder(LineCount, RowCoder)


def count_lines(file_range: FileRange) -> LineCount:
    """Counts the line ends of a range of the kind LINES."""
    return LineCount(file_range.path, file_range.first, count_range(file_range.path, file_range.first, file_range.stop))


def first_line_number(file_range: FileRange, counts: list[LineCount]) -> int:
    """The number of the first line that starts in a range, from the counts of all ranges of its file."""
    if not file_range.first:
        return 0
    lines = {count.first: count.lines for count in counts if count.path == file_range.path}  # a file may be named twice
    return 1 + sum(number for first, number in lines.items() if first < file_range.first)
