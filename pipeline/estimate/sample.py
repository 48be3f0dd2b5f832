"""A sample of lists: which parts of their files an estimate reads, and of how much they are a part.

Positions are spread evenly over the bytes of all files of a source, with a seeded offset in each stretch. What can't be
opened in the middle, such as gzip, is read from its beginning."""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.estimate.quantity import SEED, Array, bootstrap, exactly
from pipeline.filters import SelectConfig, filter_candidate
from pipeline.records import Rejected
from pipeline.sources.file_ranges import FileRange, read_range
from pipeline.sources.paths import METER, open_raw
from pipeline.sources.registry import SOURCES, SourceSettings
from pipeline.sources.source import FILE, LINES, StartsAt
from pipeline.sources.unpack import BZIP2

POSITIONS = 16
"""Positions of a source at which rows are read, if all of its rows are more than wanted."""
PROBES = (1 << 16, 1 << 20, 1 << 24)  # positions, such as bytes, that are read to see how long rows are
MIN_MEASURED_BYTES = 4 << 20  # of a compressed file, so that what is read ahead makes no difference


class SampledRange(NamedTuple):
    """A file range of the sample, and how much of its file it stands for."""

    file_range: FileRange  # with at most `file_range.rows` rows, if that is not 0
    extent: float  # of the file that `rows` rows take, in the unit of its source: bytes, rows or ids of rows
    rows: int  # of this extent, of which the sample may have the first only
    sampled: int


class Stratum(NamedTuple):
    """The files of one source and form, and what the sample has of them."""

    source: str
    total: float  # extent
    ranges: tuple[SampledRange, ...]

    @property
    def sampled(self) -> int:
        return sum(each.sampled for each in self.ranges)

    def rows(self) -> Array:
        """How many rows all files have."""
        extent = np.array([each.extent for each in self.ranges], float)
        rows = np.array([each.rows for each in self.ranges], float)
        share = min(1.0, extent.sum() / self.total) if self.total else 1.0

        def estimate(weights: np.ndarray) -> np.ndarray:
            covered = weights @ extent
            return np.array([weights @ rows * (self.total / covered if covered else 1.0)])

        return bootstrap(len(self.ranges), share, estimate, seed=0)[:, 0] if len(rows) else exactly(0)


class ListSample(NamedTuple):
    """What an estimate reads of lists."""

    strata: tuple[Stratum, ...]

    @property
    def file_ranges(self) -> list[FileRange]:
        return [each.file_range for stratum in self.strata for each in stratum.ranges]


def take_sample(file_ranges: Sequence[FileRange], settings: SourceSettings, rows: int) -> ListSample:
    """About `rows` rows of these files: as many of each source and form, or all that it has.

    A compressed file whose size its server does not tell is read to its end.
    """
    groups: dict[tuple[str, str], list[FileRange]] = {}
    for file_range in file_ranges:
        groups.setdefault((file_range.source, file_range.kind), []).append(file_range)
    sized = sorted(((_extents(group), group) for group in groups.values()), key=lambda pair: sum(pair[0]))
    strata: list[Stratum] = []
    for number, (extents, group) in enumerate(sized):
        wanted = max(1, (rows - sum(stratum.sampled for stratum in strata)) // (len(sized) - number))
        strata.append(_stratum(group, extents, settings, wanted, np.random.default_rng([SEED, number])))
    return ListSample(tuple(strata))


def _extents(file_ranges: Sequence[FileRange]) -> list[float]:
    """How much each range is, in the unit of its kind; files in bytes, 0 if that is unknown."""
    if file_ranges[0].kind != FILE:
        return [SOURCES[each.source].extent(each) for each in file_ranges]
    members = [each.path for each in file_ranges]
    return [_size(each.path) / members.count(each.path) for each in file_ranges]


def _size(path: str) -> int:
    with open_raw(path) as raw:
        return raw.seek(0, os.SEEK_END) if raw.seekable() else 0


def _stratum(
    file_ranges: Sequence[FileRange],
    extents: Sequence[float],
    settings: SourceSettings,
    wanted: int,
    rng: np.random.Generator,
) -> Stratum:
    starts, total = _starts(file_ranges[0]), sum(extents)
    if starts is StartsAt.POSITIONS:
        ranges = _parts(file_ranges, total, settings, wanted, rng)
    elif starts is StartsAt.GROUPS:
        ranges = _row_groups(file_ranges, total, settings, wanted, rng)
    else:
        ranges = _beginnings(file_ranges, extents, settings, wanted, rng)
    return Stratum(file_ranges[0].source, total, tuple(ranges))


def _parts(
    file_ranges: Sequence[FileRange], total: float, settings: SourceSettings, wanted: int, rng: np.random.Generator
) -> Iterator[SampledRange]:
    """Parts of ranges that can be read from any position on."""
    length, rows = _probe(file_ranges[len(file_ranges) // 2], settings)
    if rows * total / length <= wanted:
        yield from (_whole(file_range, settings) for file_range in file_ranges)
        return
    if block := _bzip2_block(file_ranges[0].path):  # whose rows all belong to the position where it begins
        length = min(max(length, block), int(total))
    elif length == PROBES[0]:  # else rows are long
        length = min(length, max(1, int(length * wanted / rows) // POSITIONS))
    positions = int(min(POSITIONS, total // length))
    limit = -(-wanted // positions)
    for file_range, first in _positions(file_ranges, total / positions, positions, length, rng):
        part = file_range._replace(first=first, stop=min(file_range.stop, first + length))
        found = sum(1 for _ in _read(part, settings))
        yield SampledRange(part._replace(rows=limit), part.stop - part.first, found, min(found, limit))


def _bzip2_block(path: str) -> int:
    """What a block of this bzip2 file takes where it compresses to half, in bytes; 0 for other files."""
    with open_raw(path) as raw:
        magic = raw.read(4)
    return 50_000 * int(magic[3:]) if magic[:3] == BZIP2 and magic[3:].isdigit() else 0


def _probe(file_range: FileRange, settings: SourceSettings) -> tuple[int, int]:
    """An extent at the beginning of a range, and how many rows it holds: enough to tell how long they are."""
    for length in PROBES:
        length = min(length, file_range.stop - file_range.first)
        rows = sum(1 for _ in _read(file_range._replace(stop=file_range.first + length), settings))
        if rows > 10 or file_range.first + length == file_range.stop:
            break
    return length, rows


def _positions(
    file_ranges: Sequence[FileRange], stretch: float, number: int, length: int, rng: np.random.Generator
) -> Iterator[tuple[FileRange, int]]:
    """Ranges and positions in them, with `length` behind each: one in each of equal stretches of all ranges."""
    ends = np.cumsum([each.stop - each.first for each in file_ranges])
    for stretch_number in range(number):
        position = int(stretch_number * stretch + rng.random() * (stretch - length))
        index = int(np.searchsorted(ends, position, "right"))
        yield file_ranges[index], file_ranges[index].stop - int(ends[index]) + position


def _row_groups(
    file_ranges: Sequence[FileRange], total: float, settings: SourceSettings, wanted: int, rng: np.random.Generator
) -> Iterator[SampledRange]:
    """The first rows of groups of rows."""
    if total <= wanted:
        yield from (_whole(file_range, settings) for file_range in file_ranges)
        return
    chosen = sorted({int(number) for number in rng.choice(len(file_ranges), min(POSITIONS, len(file_ranges)), False)})
    for file_range in (file_ranges[number] for number in chosen):
        group = int(rng.integers(file_range.first, file_range.stop))
        part = file_range._replace(first=group, stop=group + 1, rows=-(-wanted // len(chosen)))
        found = sum(1 for _ in _read(part, settings))
        yield SampledRange(part, found, found, found)


def _beginnings(
    file_ranges: Sequence[FileRange],
    extents: Sequence[float],
    settings: SourceSettings,
    wanted: int,
    rng: np.random.Generator,
) -> Iterator[SampledRange]:
    """The first rows of some files, each with the bytes that they take."""
    chosen = sorted({int(number) for number in rng.choice(len(file_ranges), min(POSITIONS, len(file_ranges)), False)})
    limit = -(-wanted // len(chosen))
    for number in chosen:
        yield _beginning(file_ranges[number], extents[number], settings, limit)


def _beginning(file_range: FileRange, size: float, settings: SourceSettings, limit: int) -> SampledRange:
    rows = _read(file_range, settings)
    first = sum(1 for _ in itertools.islice(rows, 1))
    before, number = METER.bytes, first
    for _ in rows:
        number += 1
        if size and number >= limit and METER.bytes - before >= MIN_MEASURED_BYTES:
            return SampledRange(file_range._replace(rows=limit), METER.bytes - before, number - first, limit)
    return SampledRange(file_range._replace(rows=limit), size, number, min(number, limit))


def _whole(file_range: FileRange, settings: SourceSettings) -> SampledRange:
    rows = sum(1 for _ in _read(file_range, settings))
    extent = rows if _starts(file_range) is StartsAt.GROUPS else file_range.stop - file_range.first
    return SampledRange(file_range, extent, rows, rows)


def _starts(file_range: FileRange) -> StartsAt:
    return SOURCES[file_range.source].starts_at(file_range)


def _read(file_range: FileRange, settings: SourceSettings) -> Iterator:
    return read_range(file_range, settings, int(file_range.kind == LINES and file_range.first > 0))


def select_seconds(sample: ListSample, config: SelectConfig, settings: SourceSettings) -> float:
    """Seconds that one core takes to read and filter a row, without what comes once for a file or a process."""
    for warm_up in (True, False):
        rows, seconds = 0, 0.0
        for file_range in sample.file_ranges[: 1 if warm_up else None]:
            number, taken = _time_filter(file_range, config, settings)
            rows, seconds = rows + number, seconds + taken
    return seconds / rows if rows else 0.0


def _time_filter(file_range: FileRange, config: SelectConfig, settings: SourceSettings) -> tuple[int, float]:
    """Rows after the first of a range, and the seconds that they took."""
    source = SOURCES[file_range.source]
    rows = _read(file_range, settings)
    next(rows, None)
    tidy = functools.partial(source.tidy_caption, settings=settings.get(source.name, source.settings))
    number, started = 0, time.perf_counter()
    for row in rows:
        number += 1
        if not isinstance(row, Rejected):
            filter_candidate(row, config, tidy)
    return number, time.perf_counter() - started
