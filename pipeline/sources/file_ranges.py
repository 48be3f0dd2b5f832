"""The files of a source and their parts: `file_ranges` lists what a pattern has to read, `read_range` reads one.

Both work without Beam. A range yields one element for each row of the published file. Rows are numbered from 0 in the
file's order, a recognised header line is not a row, and bad data is a `Rejected`, never an exception."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from apache_beam.coders import RowCoder, registry

from models.errors import UserError
from pipeline.sources import cc12m as sources_cc12m
from pipeline.sources import img2dataset, readers
from pipeline.sources import wikipedia_dump as sources_wikipedia_dump
from pipeline.sources import wit as sources_wit
from pipeline.sources import yfcc100m as sources_yfcc100m
from pipeline.sources.paths import base_name, expand
from pipeline.sources.readers import LineStart, Row, open_range, open_seekable, open_source
from pipeline.sources.registry import DEFAULTS, SOURCES, SourceSettings

SQLITE_ROWS = 500_000
"""Rows of a sqlite database that one piece holds."""
RANGE_BYTES = 16 << 20
"""Bytes of text that one piece holds, where a file can be cut."""


class FileRange(NamedTuple):
    """What one worker reads at a time: a file, or a part of one."""

    source: str
    path: str
    kind: str = "file"  # or "sqlite", "lines" or "streams": a part
    first: int = 0  # [first, stop) of a part: row ids of sqlite, bytes of a file of text or of bzip2 streams
    stop: int = 0


def file_ranges(name: str, pattern: str) -> list[FileRange]:
    """What a pattern of a source has to read, in the order of the files' names."""
    if name not in SOURCES:
        raise UserError(f"no source is called {name}: choose one of {', '.join(SOURCES)}")
    found = []
    for path in img2dataset.files(pattern) if name == img2dataset.NAME else expand(pattern):
        if name == sources_yfcc100m.NAME and "://" not in path and sources_yfcc100m.is_sqlite(path):
            found += [
                FileRange(name, path, "sqlite", *ids) for ids in sources_yfcc100m.sqlite_ranges(path, SQLITE_ROWS)
            ]
        elif name == sources_wikipedia_dump.NAME and sources_wikipedia_dump.is_index(path):
            continue  # a pattern for the dump may well match its index
        elif name == sources_wikipedia_dump.NAME and (parts := sources_wikipedia_dump.parts(path)):
            found += [FileRange(name, path, "streams", *ends) for ends in parts]
        elif SOURCES[name].of_lines and (ranges := readers.line_ranges(path, RANGE_BYTES)):
            found += [FileRange(name, path, "lines", *ends) for ends in ranges]
        else:
            found.append(FileRange(name, path))
    return found


def read_range(piece: FileRange, settings: SourceSettings = DEFAULTS, first_line: int = 0) -> Iterator[Row]:
    """The rows of a piece. `first_line` is the number of its first line in the file; see `first_line_number`."""
    file = base_name(piece.path)
    source = SOURCES[piece.source]
    chosen = {
        sources_cc12m.NAME: settings.cc12m,
        sources_yfcc100m.NAME: settings.yfcc100m,
        sources_wikipedia_dump.NAME: settings.wikipedia_dump,
        sources_wit.NAME: settings.wit,
    }
    own = {"settings": chosen[piece.source]} if piece.source in chosen else {}
    if piece.kind == "sqlite":
        yield from sources_yfcc100m.read_sqlite(piece.path, file, piece.first, piece.stop, **own)
    elif piece.kind == "streams":
        yield from sources_wikipedia_dump.read_part(piece.path, file, piece.first, piece.stop, **own)
    elif piece.kind == "lines":
        begin = LineStart(first_line, readers.first_line(piece.path) if first_line else "")
        with open_range(piece.path, piece.first, piece.stop) as stream:
            yield from source.read(stream, file, begin=begin, **own)
    else:
        with (open_seekable if source.seeks else open_source)(piece.path) as stream:
            yield from source.read(stream, file, **own, **({"path": piece.path} if source.seeks else {}))


class LineCount(NamedTuple):
    """How many lines end in a range of a file."""

    path: str
    first: int
    lines: int


def count_lines(piece: FileRange) -> LineCount:
    return LineCount(piece.path, piece.first, readers.count_range(piece.path, piece.first, piece.stop))


def first_line_number(piece: FileRange, counts: list[LineCount]) -> int:
    """The number of the first line that begins in a piece, from what was counted in the pieces of its file."""
    if not piece.first:
        return 0
    parts = {count.first: count.lines for count in counts if count.path == piece.path}  # a file may be named twice
    return 1 + sum(number for first, number in parts.items() if first < piece.first)


for _record in (FileRange, LineCount):
    registry.register_coder(_record, RowCoder)
