"""The second half of select: what becomes of the rows whose URLs' hashes are in one range.

A first look at all of them takes the few columns that decide which pair of a URL stays and in which order rows come;
the rows themselves are then read file by file in that order. So memory depends on the rows of one file of the first
half, not on those of the range."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.records import Reason
from pipeline.select.spill import ROWS, SpillFile, read_spill
from pipeline.sources.precedence import first_of_url
from pipeline.sources.registry import SOURCES

KEY_BYTES = 32
TABLE_ROWS = 1 << 14
_COLUMNS = ("key", "source", "file", "row", "reason", "high", "low")


class UrlGroups(NamedTuple):
    """The rows of some spills, as far as they decide; row n of spill s is element begins[s] + n of each array."""

    spills: Sequence[SpillFile]  # those with rows in the range
    bins: tuple[int, int]
    begins: np.ndarray  # int64 [spills + 1]
    order: np.ndarray  # int64: elements in the order of source, file and row
    stays: np.ndarray  # int64: the element that stays of each one's URL, often itself
    keys: np.ndarray  # bytes [KEY_BYTES]
    counts: dict[tuple[str, str], int]  # (source, reason or "") -> rows

    def tables(self, output: str) -> Iterator[pa.Table]:
        """The rows as tables of `spill.ROWS`, in order. In memory are those of one spill, or of several together whose
        rows lie among each other (of files with one name)."""
        place = np.empty(len(self.order), np.int64)
        place[self.order] = np.arange(len(self.order))
        spans = sorted(
            (int(place[begin:end].min()), int(place[begin:end].max()) + 1, number)
            for number, (begin, end) in enumerate(zip(self.begins, self.begins[1:], strict=False))
        )
        while spans:
            first, stop, number = spans.pop(0)
            numbers = [number]
            while spans and spans[0][0] < stop:
                _, end, number = spans.pop(0)
                stop = max(stop, end)
                numbers.append(number)
            yield from self._tables(output, numbers, self.order[first:stop])

    def _tables(self, output: str, numbers: list[int], order: np.ndarray) -> Iterator[pa.Table]:
        rows = pa.concat_tables(read_spill(output, self.spills[number], *self.bins) for number in numbers)
        elements = np.concatenate([np.arange(self.begins[number], self.begins[number + 1]) for number in numbers])
        repeated = np.flatnonzero(self.stays[elements] != elements)
        if len(repeated):
            reasons, details = rows["reason"].to_pylist(), rows["detail"].to_pylist()
            for number in repeated.tolist():
                reasons[number] = Reason.DUPLICATE_URL.value
                details[number] = f"kept {self.keys[self.stays[elements[number]]].decode()}"
            for name, column in (("reason", reasons), ("detail", details)):
                rows = rows.set_column(ROWS.get_field_index(name), name, pa.array(column, pa.string()))
        # elements are those of the spills one after the other, which may not be next to each other
        sorter = np.argsort(elements)
        places = sorter[np.searchsorted(elements, order, sorter=sorter)]
        for begin in range(0, len(places), TABLE_ROWS):
            yield rows.take(places[begin : begin + TABLE_ROWS])


def group_by_url(output: str, spills: Sequence[SpillFile], first_bin: int, stop_bin: int) -> UrlGroups:
    """Of each URL only the first pair stays, as `dedup.first_of` has it."""
    bins = first_bin, stop_bin
    # Sorted, because the runner hands them over in any order
    spills = sorted((spill for spill in spills if spill.rows_of(*bins)), key=lambda spill: spill.path)
    begins = np.cumsum([0, *(spill.rows_of(*bins) for spill in spills)])
    key, row = np.empty(begins[-1], f"S{KEY_BYTES}"), np.empty(begins[-1], np.int64)
    high, low = np.empty(begins[-1], np.uint64), np.empty(begins[-1], np.uint64)
    codes = {name: _DictionaryColumn(begins[-1]) for name in ("source", "file", "reason")}
    for begin, end, spill in zip(begins, begins[1:], spills, strict=False):
        table = read_spill(output, spill, *bins, columns=_COLUMNS)
        here = slice(begin, end)
        row[here], high[here], low[here] = (table[name].to_numpy() for name in ("row", "high", "low"))
        key[here] = _bytes_of(table["key"])
        for name, column in codes.items():
            column.put(here, table[name])
    source, file, reason = codes["source"], codes["file"], codes["reason"]
    by_file = file.ranks(sorted(file.names))
    is_pair = reason.codes == reason.code_of("")
    stays = first_of_url(np.flatnonzero(is_pair), high, low, (source.ranks(list(SOURCES)), by_file, row, key))
    order = np.lexsort((key, row, by_file, source.ranks(sorted(source.names))))
    is_repeated = stays != np.arange(len(stays))
    counts = collections.Counter(
        zip(source.codes[~is_repeated].tolist(), reason.codes[~is_repeated].tolist(), strict=True)
    )
    counts = collections.Counter({(source.names[one], reason.names[two]): n for (one, two), n in counts.items()})
    for code, number in collections.Counter(source.codes[is_repeated].tolist()).items():
        counts[source.names[code], Reason.DUPLICATE_URL.value] += number
    return UrlGroups(spills, bins, begins, order, stays, key, dict(counts))


class _DictionaryColumn:
    """A column of few different texts, as numbers."""

    def __init__(self, rows: int):
        self.codes = np.zeros(rows, np.int32)
        self.names: list[str] = []
        self._code: dict[str, int] = {}

    def code_of(self, name: str) -> int:
        if name not in self._code:
            self._code[name] = len(self.names)
            self.names.append(name)
        return self._code[name]

    def put(self, here: slice, column: pa.ChunkedArray) -> None:
        encoded = column.combine_chunks().dictionary_encode()
        mine = np.array([self.code_of(name) for name in encoded.dictionary.to_pylist()], np.int32)
        self.codes[here] = mine[encoded.indices.to_numpy()]

    def ranks(self, names: Sequence[str] | dict[str, int]) -> np.ndarray:
        """The rows' places in another order of the names."""
        rank = {name: number for number, name in enumerate(names)}
        return np.array([rank[name] for name in self.names], np.int32)[self.codes] if self.names else self.codes


def _bytes_of(column: pa.ChunkedArray) -> np.ndarray:
    """Texts of KEY_BYTES characters as an array."""
    fixed = pc.cast(pc.cast(column.combine_chunks(), pa.binary()), pa.binary(KEY_BYTES))
    return np.frombuffer(fixed.buffers()[1], f"S{KEY_BYTES}", len(fixed), fixed.offset * KEY_BYTES)
