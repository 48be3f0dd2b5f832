"""Rows grouped by a hash of 64 bits, on disk: the one shuffle of large collections.

A worker collects rows as Arrow batches and writes them to spill files, sorted by hash and cut into BINS segments that
can be read alone; Beam moves the files' names. A group is a contiguous range of hashes, so its reader takes one range
of bytes from each file. Memory depends on the rows of a group, never on those of the list: the local runner would hold
each row that it groups by itself, at about ten times its size.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.coders import RowCoder, registry
from apache_beam.transforms.window import GlobalWindows

from pipeline.output import files
from pipeline.output.byte_ranges import read_range
from pipeline.output.names import SPILL_FOLDER, WORK_FOLDER

BINS = 1024
"""Equal ranges of hashes; a segment of a spill file holds the rows of one."""
BATCH_ROWS = 2048
SPILL_BYTES = 32 << 20
"""Rows that a worker collects before it writes a file."""
HASH = "hash"
"""The column that spill files have beside those of their rows."""


class SpillFile(NamedTuple):
    """A file of rows, sorted by hash."""

    path: str  # below the output
    rows: int
    segments: bytes  # uint32 [BINS + 1]: the segment of bin b is the bytes [segments[b], segments[b + 1])


registry.register_coder(SpillFile, RowCoder)  # workers get its fields, in a class of Beam's own


def segment_offsets(spill: SpillFile, first: int, stop: int) -> list[int]:
    """The offsets in the file of the segments of bins [first, stop), and the end of the last."""
    return np.frombuffer(spill.segments, "<u4")[first : stop + 1].tolist()


def segments_size(spill: SpillFile, first: int, stop: int) -> int:
    """Bytes of the segments of bins [first, stop); 0 if they hold no row."""
    offsets = segment_offsets(spill, first, stop)
    return offsets[-1] - offsets[0]


class Spill(beam.PTransform):
    """Rows (NamedTuples, whose fields are the schema's columns) -> SpillFiles, below the output's work folder.

    A tuple of PCollections is spilled one by one: the local runner would hold the rows of a Flatten in memory.
    """

    def __init__(self, output: str, schema: pa.Schema, hash_of: Callable[[Any], int]):
        self._output, self._schema, self._hash_of = output, schema, hash_of

    def expand(self, rows):
        collections = rows if isinstance(rows, tuple) else (rows,)
        spilled = tuple(
            collection
            | f"Spill {number}"
            >> beam.ParDo(_SpillRows(self._output, self._schema, self._hash_of)).with_output_types(SpillFile)
            for number, collection in enumerate(collections)
        )
        return spilled[0] if len(spilled) == 1 else spilled | "Spill files" >> beam.Flatten()


class _SpillRows(beam.DoFn):
    def __init__(self, output: str, schema: pa.Schema, hash_of: Callable[[Any], int]):
        self._output, self._schema, self._hash_of = output, schema, hash_of

    def start_bundle(self) -> None:
        self._rows: list[tuple] = []
        self._batches: list[pa.RecordBatch] = []

    def process(self, row: Any) -> Iterator[SpillFile]:
        self._rows.append((*row, self._hash_of(row)))
        if len(self._rows) == BATCH_ROWS:
            self._batches.append(to_batch(self._rows, self._schema))
            self._rows = []
            if sum(batch.nbytes for batch in self._batches) >= SPILL_BYTES:
                yield self._write()

    def finish_bundle(self) -> Iterator[Any]:
        if self._rows:
            self._batches.append(to_batch(self._rows, self._schema))
            self._rows = []
        if self._batches:
            yield GlobalWindows.windowed_value(self._write())

    def _write(self) -> SpillFile:
        batches, self._batches = self._batches, []
        return write_spill(self._output, spill_path(), pa.Table.from_batches(batches))


def to_batch(rows: list[tuple], schema: pa.Schema) -> pa.RecordBatch:
    """Rows with their hash as the last value, as a batch of the schema and the hash."""
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, with_hash(schema), strict=True)],
        with_hash(schema),
    )


def with_hash(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field(HASH, pa.uint64()))


def spill_path() -> str:
    """A name of its own: an attempt that is repeated writes another file."""
    return f"{WORK_FOLDER}/{SPILL_FOLDER}/{uuid.uuid4().hex}.arrow"


def write_spill(output: str, path: str, table: pa.Table) -> SpillFile:
    """Writes rows with their hashes to a file below the output."""
    table = table.take(np.argsort(table[HASH].to_numpy(), kind="stable")).combine_chunks()
    hashes = table[HASH].to_numpy()
    edges = np.arange(BINS, dtype=np.uint64) * np.uint64(2**64 // BINS)
    starts = np.append(np.searchsorted(hashes, edges), len(table))
    segments = [
        _pack(table.slice(start, stop - start)) if stop > start else b""
        for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ]
    files.write_atomically(files.join(output, *path.split("/")), b"".join(segments))
    offsets = np.cumsum([0, *map(len, segments)]).astype("<u4")
    return SpillFile(path, len(table), offsets.tobytes())


def _pack(rows: pa.Table) -> bytes:
    [batch] = rows.combine_chunks().to_batches()
    data = batch.serialize()
    return data.size.to_bytes(8, "little") + pa.compress(data, "lz4", asbytes=True)


def _unpack(segment: memoryview, schema: pa.Schema) -> pa.RecordBatch:
    data = pa.decompress(pa.py_buffer(segment[8:]), int.from_bytes(segment[:8], "little"), "lz4")
    return pa.ipc.read_record_batch(data, schema)


class HashRange(NamedTuple):
    """Groups [first, stop) of `total` into which all hashes are divided evenly."""

    first: int
    stop: int
    total: int

    @property
    def bounds(self) -> tuple[int, int]:
        """The first hash, and the first one behind."""
        return -(-(self.first << 64) // self.total), -(-(self.stop << 64) // self.total)


def read_spilled(output: str, spills: Iterable[SpillFile], schema: pa.Schema, low: int, high: int) -> pa.Table:
    """The rows whose hashes are in [low, high), with their hashes, in no order."""
    bins = low * BINS >> 64, -(-high * BINS // 2**64)
    batches = [
        batch
        for spill in spills
        for batch in unpack_segments(spill, *bins, read_segments(output, spill, *bins), schema)
    ]
    table = pa.Table.from_batches(batches, with_hash(schema))
    inside = pc.greater_equal(table[HASH], pa.scalar(low, pa.uint64()))
    if high < 2**64:
        inside = pc.and_(inside, pc.less(table[HASH], pa.scalar(high, pa.uint64())))
    return table.filter(inside)


def read_segments(output: str, spill: SpillFile, first: int, stop: int) -> bytes:
    """The bytes of the segments of bins [first, stop), by one request or, if they are empty, by none."""
    start, *_, end = segment_offsets(spill, first, stop)
    return read_range(files.join(output, *spill.path.split("/")), start, end) if end > start else b""


def unpack_segments(
    spill: SpillFile, first: int, stop: int, data: bytes, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The rows that `read_segments` read, with their hashes, in the order of the file."""
    offsets, view = segment_offsets(spill, first, stop), memoryview(data)
    for start, end in itertools.pairwise(offsets):
        if end > start:
            yield _unpack(view[start - offsets[0] : end - offsets[0]], with_hash(schema))


class HashRanges(beam.PTransform):
    """SpillFiles -> HashRanges of about `rows_per_group` rows in each group, spread over the workers; one at least.

    A range is one group, or up to `max_groups` of them where there are so many that each worker still gets some.
    """

    def __init__(self, rows_per_group: int, max_groups: int = 1):
        self._rows_per_group, self._max_groups = rows_per_group, max_groups

    def expand(self, spills):
        return (
            spills
            | "Rows" >> beam.Map(lambda spill: spill.rows).with_output_types(int)
            | "All rows" >> beam.CombineGlobally(sum)
            | "Ranges" >> beam.FlatMap(hash_ranges, self._rows_per_group, self._max_groups).with_output_types(HashRange)
            | "Spread" >> beam.Reshuffle()
        )


MIN_RANGES = 64  # before groups share a range: enough for many workers to have something to do


def hash_ranges(rows: int, rows_per_group: int, max_groups: int = 1) -> list[HashRange]:
    total = max(1, -(-rows // rows_per_group))
    step = max(1, min(max_groups, total // MIN_RANGES))
    return [HashRange(first, min(first + step, total), total) for first in range(0, total, step)]


def rows_as(row_type: type[Any], table: pa.Table) -> Iterator[Any]:
    """The rows of a table as NamedTuples."""
    for batch in table.select(row_type._fields).to_batches(max_chunksize=BATCH_ROWS):
        for row in batch.to_pylist():
            yield row_type(**row)
