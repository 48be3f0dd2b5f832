"""Judged rows on disk, between the two halves of select.

The first half reads pieces of the sources and leaves their rows in files sorted by a hash of the URL. The second
(`outcomes.py`) takes one range of hashes out of all of them: every row of one URL is there, so that duplicates are
found without a shuffle. What Beam moves are the names of files."""

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
from pipeline.output.schemas import PAIRS
from pipeline.output.work_folder import WORK_FOLDER
from pipeline.records import Pair, Rejected
from pipeline.select.urls import canonical_url

HASH_BINS = 1024
"""Ranges of hashes that can be told apart: so many files are the most that the second half writes."""
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
    cuts: bytes  # uint32 [BINS + 1]: the rows of bin b are [cuts[b], cuts[b + 1])

    @property
    def rows(self) -> int:
        return self.rows_of(0, HASH_BINS)

    def rows_of(self, first_bin: int, stop_bin: int) -> int:
        """How many rows a range of bins has here."""
        first, stop = self.range_of(first_bin, stop_bin)
        return stop - first

    def range_of(self, first_bin: int, stop_bin: int) -> tuple[int, int]:
        """The rows of a range of bins, as numbers from 0."""
        cuts = np.frombuffer(self.cuts, "<u4")
        return int(cuts[first_bin]), int(cuts[stop_bin])


registry.register_coder(SpillFile, RowCoder)


def write_spills(output: str, name: str, outcomes: Iterable[Pair | Rejected]) -> Iterator[SpillFile]:
    """The rows of one piece, in as many files as memory asks for."""
    rows = map(_row, outcomes)
    batches = (_batch(some) for some in iter(lambda: list(itertools.islice(rows, BATCH_ROWS)), []))
    for number in itertools.count():
        if not (some := list(itertools.islice(batches, SPILL_BATCHES))):
            return
        yield _write_spill(output, f"{name}-{number:05d}", pa.Table.from_batches(some))


def read_spill(
    output: str, spill: SpillFile, first_bin: int, stop_bin: int, columns: Sequence[str] = ROWS.names
) -> pa.Table:
    """The rows of a range of bins."""
    first, stop = spill.range_of(first_bin, stop_bin)
    fields = sorted(ROWS.get_field_index(name) for name in columns)
    with files.open_read(files.join(output, *spill.path.split("/"))) as file:
        reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
        begin = first // BATCH_ROWS
        batches = [reader.get_batch(number) for number in range(begin, -(-stop // BATCH_ROWS))]
    table = pa.Table.from_batches(batches, pa.schema([ROWS.field(number) for number in fields]))
    return table.slice(first - begin * BATCH_ROWS, stop - first)


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
        raw_caption="",
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
    cuts = np.append(np.searchsorted(high[order], edges), len(table)).astype("<u4")
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, ROWS, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        for begin in range(0, len(table), BATCH_ROWS):
            writer.write_table(table.take(order[begin : begin + BATCH_ROWS]).combine_chunks())
    path = f"{WORK_FOLDER}/rows/{name}.arrow"
    files.write_atomically(files.join(output, *path.split("/")), buffer.getbuffer())
    return SpillFile(path, cuts.tobytes())
