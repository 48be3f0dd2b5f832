"""The second half of select: keeps one pair of each URL among the rows of one range of hashes.

A first pass over them reads the few columns that decide which pair of a URL stays and in which order rows come;
the rows themselves are then read file by file in that order. So memory depends on the rows of one file of the first
half, not on those of the range."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.spill import HASH, SpillFile, segments_size, with_hash
from pipeline.records import KEY_DIGITS, MAX_REJECT_TEXT, Reason, kept_instead
from pipeline.select.spill import ROWS, StoredRows
from pipeline.sources.precedence import first_of_url
from pipeline.sources.registry import SOURCES

TABLE_ROWS = 1 << 14


class UrlGroups(NamedTuple):
    """The columns of some spill files that decide which rows stay; row n of spill s is element starts[s] + n."""

    rows: StoredRows  # of the spills
    starts: np.ndarray  # int64 [spills + 1]
    order: np.ndarray  # int64: elements in the order of source, file and row
    kept_row: np.ndarray  # int64: for each element, the element that stays of its URL, often itself
    keys: np.ndarray  # bytes [KEY_DIGITS]
    counts: dict[tuple[str, str], int]  # (source, reason or "") -> rows

    def tables(self) -> Iterator[pa.Table]:
        """The rows as tables of `spill.ROWS`, in order. In memory are those of one spill, or of several together whose
        rows lie among each other (of files with one name)."""
        position = np.empty(len(self.order), np.int64)
        position[self.order] = np.arange(len(self.order))
        spans = sorted(
            (int(position[start:end].min()), int(position[start:end].max()) + 1, number)
            for number, (start, end) in enumerate(zip(self.starts, self.starts[1:], strict=False))
        )
        while spans:
            first, stop, number = spans.pop(0)
            numbers = [number]
            while spans and spans[0][0] < stop:
                _, end, number = spans.pop(0)
                stop = max(stop, end)
                numbers.append(number)
            yield from self._tables(numbers, self.order[first:stop])

    def _tables(self, numbers: list[int], order: np.ndarray) -> Iterator[pa.Table]:
        rows = pa.concat_tables(map(self.rows.table, numbers))
        elements = np.concatenate([np.arange(self.starts[number], self.starts[number + 1]) for number in numbers])
        repeated = np.flatnonzero(self.kept_row[elements] != elements)
        if len(repeated):
            kept = [self.keys[self.kept_row[elements[number]]].decode() for number in repeated.tolist()]
            rows = _as_rejects(rows, repeated, kept)
        # elements are those of the spills one after the other, which may not be next to each other
        sorter = np.argsort(elements)
        positions = sorter[np.searchsorted(elements, order, sorter=sorter)]
        for start in range(0, len(positions), TABLE_ROWS):
            yield rows.take(positions[start : start + TABLE_ROWS])


def _as_rejects(rows: pa.Table, repeated: np.ndarray, kept: Sequence[str]) -> pa.Table:
    """The rows, those at `repeated` as rejects that name the key of the pair kept instead."""
    is_repeated = np.zeros(len(rows), bool)
    is_repeated[repeated] = True
    mask, raw_caption = pa.array(is_repeated), rows["raw_caption"].combine_chunks()
    details = pa.array(list(map(kept_instead, kept)), pa.string())
    columns = {
        "reason": pc.if_else(mask, Reason.DUPLICATE_URL.value, rows["reason"].combine_chunks()),
        "detail": pc.replace_with_mask(rows["detail"].combine_chunks(), mask, details),
        "raw_caption": pc.if_else(mask, pc.utf8_slice_codeunits(raw_caption, 0, MAX_REJECT_TEXT), raw_caption),
    }
    for name, column in columns.items():
        rows = rows.set_column(ROWS.get_field_index(name), ROWS.field(name), column)
    return rows


def group_by_url(output: str, spills: Sequence[SpillFile], first_bin: int, stop_bin: int) -> UrlGroups:
    """Groups the rows of bins [first_bin, stop_bin); of each URL the pair stays that `preferred_pair` would choose."""
    # Sorted, because the runner hands them over in any order
    spills = sorted(
        (spill for spill in spills if segments_size(spill, first_bin, stop_bin)), key=lambda spill: spill.path
    )
    rows = StoredRows(output, spills, first_bin, stop_bin)
    codes = {name: _DictionaryColumn() for name in ("source", "file", "reason")}
    parts = [_deciding_columns(rows.table(number), codes) for number in range(len(spills))]
    starts = np.cumsum([0, *(len(part[0]) for part in parts)])
    empty = _deciding_columns(with_hash(ROWS).empty_table(), codes)  # of a range without any row
    key, row, high, low = map(np.concatenate, zip(empty, *parts, strict=True))
    source, file, reason = codes["source"], codes["file"], codes["reason"]
    by_file = file.ranks(sorted(file.names))
    is_pair = reason.codes == reason.code_of("")
    kept_row = first_of_url(np.flatnonzero(is_pair), high, low, (source.ranks(list(SOURCES)), by_file, row, key))
    order = np.lexsort((key, row, by_file, source.ranks(sorted(source.names))))
    is_repeated = kept_row != np.arange(len(kept_row))
    counts = collections.Counter(
        zip(source.codes[~is_repeated].tolist(), reason.codes[~is_repeated].tolist(), strict=True)
    )
    counts = collections.Counter(
        {(source.names[source_code], reason.names[reason_code]): n for (source_code, reason_code), n in counts.items()}
    )
    for code, number in collections.Counter(source.codes[is_repeated].tolist()).items():
        counts[source.names[code], Reason.DUPLICATE_URL.value] += number
    return UrlGroups(rows=rows, starts=starts, order=order, kept_row=kept_row, keys=key, counts=dict(counts))


def _deciding_columns(table: pa.Table, codes: dict[str, _DictionaryColumn]) -> tuple[np.ndarray, ...]:
    """Copies of key, row, and both halves of the hash; the columns in `codes` go there. The table need not stay."""
    for name, column in codes.items():
        column.append(table[name])
    return _bytes_of(table["key"]).copy(), *(table[name].to_numpy().copy() for name in ("row", HASH, "low"))


class _DictionaryColumn:
    """A column of a few distinct texts, stored as codes."""

    def __init__(self) -> None:
        self._parts = [np.zeros(0, np.int32)]
        self.names: list[str] = []
        self._code: dict[str, int] = {}

    @property
    def codes(self) -> np.ndarray:
        return np.concatenate(self._parts)

    def code_of(self, name: str) -> int:
        if name not in self._code:
            self._code[name] = len(self.names)
            self.names.append(name)
        return self._code[name]

    def append(self, column: pa.ChunkedArray) -> None:
        encoded = column.combine_chunks().dictionary_encode()
        codes = np.array([self.code_of(name) for name in encoded.dictionary.to_pylist()], np.int32)
        self._parts.append(codes[encoded.indices.to_numpy()])

    def ranks(self, names: Sequence[str] | dict[str, int]) -> np.ndarray:
        """For each row, the index of its text in `names`."""
        rank = {name: number for number, name in enumerate(names)}
        return np.array([rank[name] for name in self.names], np.int32)[self.codes] if self.names else self.codes


def _bytes_of(column: pa.ChunkedArray) -> np.ndarray:
    """Texts of KEY_DIGITS characters as an array."""
    fixed = pc.cast(pc.cast(column.combine_chunks(), pa.binary()), pa.binary(KEY_DIGITS))
    return np.frombuffer(fixed.buffers()[1], f"S{KEY_DIGITS}", len(fixed), fixed.offset * KEY_DIGITS)
