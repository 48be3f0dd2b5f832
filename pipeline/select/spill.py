"""Filtered rows on disk, between the two halves of select.

The first half reads file ranges of the sources and writes their rows to files sorted by a hash of the URL. The second
(`url_duplicates.py`) reads one range of hashes from all of them: it has every row of a URL, so that duplicates are
found without a shuffle. Beam moves only the names of files."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from apache_beam.coders import RowCoder, registry

from pipeline.output import files
from pipeline.output.names import ROWS_FOLDER, WORK_FOLDER
from pipeline.output.schemas import PAIRS
from pipeline.records import Pair, Rejected
from pipeline.select.urls import canonical_url

HASH_BINS = 1024
"""Number of equal ranges of hashes; the second half writes at most one file for each."""
BATCH_ROWS = 2048
SPILL_BATCHES = 64
"""Batches that the first half holds in memory, about 50 MB; more than `RANGE_BYTES` of most lists."""

ROWS = pa.schema(
    [
        *PAIRS,
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("high", pa.uint64()),
        ("low", pa.uint64()),
    ]
)
"""A pair (its reason is empty) or a reject (what it has no value for is empty), and the 128-bit hash of its URL."""


class SpillFile(NamedTuple):
    """A file of rows, sorted by hash."""

    path: str  # below the output
    bin_offsets: bytes  # uint32 [HASH_BINS + 1]: bin b has rows [bin_offsets[b], bin_offsets[b + 1])

    @property
    def rows(self) -> int:
        return self.rows_of(0, HASH_BINS)

    def rows_of(self, first_bin: int, stop_bin: int) -> int:
        """Number of rows of a range of bins in this file."""
        first, stop = self.range_of(first_bin, stop_bin)
        return stop - first

    def range_of(self, first_bin: int, stop_bin: int) -> tuple[int, int]:
        """First row and end of a range of bins, from 0."""
        bin_offsets = np.frombuffer(self.bin_offsets, "<u4")
        return int(bin_offsets[first_bin]), int(bin_offsets[stop_bin])


registry.register_coder(SpillFile, RowCoder)


def write_spills(output: str, name: str, outcomes: Iterable[Pair | Rejected]) -> Iterator[SpillFile]:
    """Writes the rows of one file range, a file for each SPILL_BATCHES batches."""
    rows = map(_row, outcomes)
    batches = (_batch(batch) for batch in iter(lambda: list(itertools.islice(rows, BATCH_ROWS)), []))
    for number in itertools.count():
        if not (batch := list(itertools.islice(batches, SPILL_BATCHES))):
            return
        yield _write_spill(output, f"{name}-{number:05d}", pa.Table.from_batches(batch))


def read_spill(
    output: str, spill: SpillFile, first_bin: int, stop_bin: int, columns: Sequence[str] = ROWS.names
) -> pa.Table:
    """The rows of a range of bins."""
    first, stop = spill.range_of(first_bin, stop_bin)
    fields = sorted(ROWS.get_field_index(name) for name in columns)
    with files.open_read(files.join(output, *spill.path.split("/"))) as file:
        reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
        start = first // BATCH_ROWS
        batches = [reader.get_batch(number) for number in range(start, -(-stop // BATCH_ROWS))]
    table = pa.Table.from_batches(batches, pa.schema([ROWS.field(number) for number in fields]))
    return table.slice(first - start * BATCH_ROWS, stop - first)


def _row(outcome: Pair | Rejected) -> tuple:
    if isinstance(outcome, Pair):
        digest = _digest(canonical_url(outcome.url))
        return (*outcome, "", "", *digest)
    empty = Pair(
        key=outcome.key,
        source=outcome.source,
        file=outcome.file,
        row=outcome.row,
        url=outcome.url,
        fallback_urls=(),
        caption="",
        raw_caption=outcome.raw_caption,
        width=None,
        height=None,
        licence="",
        page_url="",
        split="",
    )
    return (*empty, outcome.reason, outcome.detail, *_digest(outcome.key))


def _digest(text: str) -> tuple[int, int]:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def _batch(rows: list[tuple]) -> pa.RecordBatch:
    columns = zip(zip(*rows, strict=True), ROWS, strict=True)
    return pa.record_batch([pa.array(column, field.type) for column, field in columns], ROWS)


def _write_spill(output: str, name: str, table: pa.Table) -> SpillFile:
    high = table["high"].to_numpy()
    order = np.argsort(high, kind="stable")
    edges = np.arange(HASH_BINS, dtype=np.uint64) * np.uint64(2**64 // HASH_BINS)
    bin_offsets = np.append(np.searchsorted(high[order], edges), len(table)).astype("<u4")
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, ROWS, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        for start in range(0, len(table), BATCH_ROWS):
            writer.write_table(table.take(order[start : start + BATCH_ROWS]).combine_chunks())
    path = f"{WORK_FOLDER}/{ROWS_FOLDER}/{name}.arrow"
    files.write_atomically(files.join(output, *path.split("/")), buffer.getbuffer())
    return SpillFile(path, bin_offsets.tobytes())
