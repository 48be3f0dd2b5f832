"""The protocol of a source: what its module tells the rest of pairmill, with defaults for what most sources share.

A new source is one file beside this one and one line of `registry.SOURCES`. Its class names the source, holds the
default settings, and overrides `read_range` (or, for a list with one row a line, `LineSource.read`) and whatever else
differs. Instances keep no state: settings are passed in, because workers get them from the launcher."""

from __future__ import annotations

import abc
import argparse
import dataclasses
import enum
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar

from apache_beam.coders import RowCoder, registry

from pipeline.sources.file_kinds import TEXT
from pipeline.sources.paths import base_name, expand, open_raw
from pipeline.sources.readers import LineStart, Row, first_line, line_ranges, open_range, open_source
from pipeline.sources.unpack import lists_in

RANGE_BYTES = 16 << 20
"""Bytes of text in one file range, where a list can be cut."""
FILE, LINES = "file", "lines"
"""Kinds of file range: a file as a whole; a range of bytes of a text file, whose rows are its lines."""


class FileRange(NamedTuple):
    """What one worker reads at a time: a file, or a part of one."""

    source: str
    path: str
    kind: str = FILE  # or LINES, or a source's own kind of part
    first: int = 0  # [first, stop) of a part, in the source's own unit: bytes, or row ids of sqlite
    stop: int = 0
    member: str = ""  # the name of a list in a zip of several
    rows: int = 0  # that are read at most; 0: all of them


registry.register_coder(FileRange, RowCoder)


class StartsAt(enum.Enum):
    """Where in a file range reading can begin, so that a sample need not read what stands before."""

    POSITIONS = "any position of [first, stop)"
    GROUPS = "the first row of each group of rows in [first, stop)"
    BEGINNING = "its first row"


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """The settings of a source that has no options."""


S = TypeVar("S")


class Source(abc.ABC, Generic[S]):
    """One source of image-text pairs; S is the frozen dataclass of what a user may choose of it."""

    name: str  # as in `--source NAME=PATTERN`
    settings: S  # the defaults
    kinds: frozenset[str] = frozenset({TEXT})  # of files that it reads: see file_kinds
    checks_rows = True  # whether `check_files` reads the first rows
    member_pattern: re.Pattern[str] = re.compile("")  # of the names of lists in an archive that holds other things, too

    # Reading

    def files(self, pattern: str) -> list[str]:
        """The files that a path, a glob or a URL names, sorted. Raises UserError if there are none."""
        return expand(pattern)

    def members(self, path: str) -> list[str]:
        """The names of a zip's lists, if it holds several that are this source's; else []."""
        with open_raw(path) as raw:
            names = lists_in(raw, path)
        found = [name for name in names if self.member_pattern.search(name)] or names
        return sorted(found) if len(names) > 1 else []

    def split(self, path: str) -> list[FileRange]:
        """The ranges that workers read side by side; together they cover the file."""
        return [FileRange(self.name, path, member=member) for member in self.members(path) or [""]]

    @abc.abstractmethod
    def read_range(self, file_range: FileRange, settings: S, first_line_number: int = 0) -> Iterator[Row]:
        """One element for each row of the range. Bad data is a `Rejected`, never an exception.

        `first_line_number` is that of the first line of a range of the kind LINES, from 0.
        """

    def starts_at(self, file_range: FileRange) -> StartsAt:
        return StartsAt.POSITIONS if file_range.kind == LINES else StartsAt.BEGINNING

    def extent(self, file_range: FileRange) -> int:
        """How much a range of another kind than FILE is: rows if it has groups of them, else positions."""
        return file_range.stop - file_range.first

    def prepare(self, settings: S, folder: str) -> S:
        """The settings as workers need them, after the launcher wrote indexes of the user's side files into `folder`.

        An index that is there already, of an interrupted run, is used as it is. Raises UserError for a side file that
        does not have the expected format.
        """
        return settings

    def settings_of_check(self, settings: S) -> S:
        """The settings by which `check_files` reads: those that tell how a row is read, without side files."""
        return self.settings

    def check_head(self, path: str, head: bytes) -> None:
        """Raises UserError if a file's first bytes are those of something else."""

    # Options

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        """Adds the source's command-line options to those of select."""

    def settings_from(self, args: argparse.Namespace) -> S:
        """The settings that those options give."""
        return self.settings

    def recorded(self, settings: S) -> dict[str, Any]:
        """What the output's settings.json or manifest records of the settings; its keys are stable."""
        values = dataclasses.asdict(settings)  # type: ignore[call-overload]  # S has no bound: dataclasses share no base
        return {self.name.replace("-", "_"): values} if values else {}

    def side_files(self, settings: S) -> list[str]:
        """Files beside the listed ones whose bytes decide the result: recorded with their sha256."""
        return []

    # Captions

    def tidy_caption(self, caption: str, settings: S) -> str:
        """The clean caption without this source's own marks."""
        return caption


class LineSource(Source[S]):
    """A source with one row a line, so that workers read a big file in ranges of bytes."""

    def split(self, path: str) -> list[FileRange]:
        ranges = [
            FileRange(source=self.name, path=path, kind=LINES, first=first, stop=stop)
            for first, stop in line_ranges(path, RANGE_BYTES)
        ]
        return ranges or super().split(path)

    def read_range(self, file_range: FileRange, settings: S, first_line_number: int = 0) -> Iterator[Row]:
        path, file = file_range.path, base_name(file_range.member or file_range.path)
        if file_range.kind == LINES:
            start = LineStart(first_line_number, first_line(path) if first_line_number else "")
            with open_range(path, file_range.first, file_range.stop) as stream:
                yield from self.read(stream, file, start, settings)
        else:
            with open_source(path, file_range.member) as stream:
                yield from self.read(stream, file, LineStart(), settings)

    @abc.abstractmethod
    def read(self, stream: BinaryIO, file: str, start: LineStart, settings: S) -> Iterator[Row]:
        """The rows of a decompressed stream, numbered from `start.line`; `file` is the base name that they record."""
