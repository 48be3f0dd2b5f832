"""Judged rows on disk, between the two halves of select.

The first half reads pieces of the sources and leaves their rows in files sorted by a hash of the URL. The second takes
one range of hashes out of all of them: every row of one URL is there, so that duplicates are found without a shuffle,
and no process holds more than its own range. What Beam moves are the names of files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from apache_beam.coders import RowCoder, registry

from pipeline import storage
from pipeline.dedup import normalised_url
from pipeline.parquet import PAIRS
from pipeline.records import Pair, Rejected
from pipeline.units import WORK_FOLDER

BINS = 1024
"""Ranges of hashes that can be told apart: so many files are the most that the second half writes."""
BATCH_ROWS = 2048
SPILL_ROWS = 50_000
"""Rows that the first half holds in memory: about 100 MB with what Python adds."""

ROWS = pa.schema([
    *PAIRS, ("reason", pa.string()), ("detail", pa.string()), ("high", pa.uint64()), ("low", pa.uint64()),
])  # fmt: skip
"""A pair (its reason is empty) or a reject (what it has no value for is empty), and the 128-bit hash of its URL."""


class Spill(NamedTuple):
    """A file of rows, sorted by hash."""

    path: str  # below the output
    cuts: bytes  # uint32 [BINS + 1]: the rows of bin b are [cuts[b], cuts[b + 1])

    @property
    def rows(self) -> int:
        return int(np.frombuffer(self.cuts, "<u4")[-1])


registry.register_coder(Spill, RowCoder)


def write_spills(output: str, name: str, outcomes: Iterable[Pair | Rejected]) -> Iterator[Spill]:
    """The rows of one piece, in as many files as memory asks for."""
    rows: list[tuple] = []
    number = 0
    for outcome in outcomes:
        rows.append(_row(outcome))
        if len(rows) == SPILL_ROWS:
            yield _write_spill(output, f"{name}-{number:05d}", rows)
            rows, number = [], number + 1
    if rows:
        yield _write_spill(output, f"{name}-{number:05d}", rows)


def read_range(output: str, spills: Iterable[Spill], first_bin: int, stop_bin: int) -> pa.Table:
    """The rows of a range of bins, from all of the files."""
    tables = [ROWS.empty_table()]
    for spill in spills:
        cuts = np.frombuffer(spill.cuts, "<u4")
        first, stop = int(cuts[first_bin]), int(cuts[stop_bin])
        if first == stop:
            continue
        with storage.open_read(storage.join(output, *spill.path.split("/"))) as file:
            reader = pa.ipc.open_file(file)
            begin = first // BATCH_ROWS
            batches = [reader.get_batch(number) for number in range(begin, (stop - 1) // BATCH_ROWS + 1)]
        table = pa.Table.from_batches(batches, ROWS)
        tables.append(table.slice(first - begin * BATCH_ROWS, stop - first))
    return pa.concat_tables(tables)


def _row(outcome: Pair | Rejected) -> tuple:
    if isinstance(outcome, Pair):
        digest = _digest(normalised_url(outcome.url))
        return (*outcome, "", "", *digest)
    row = outcome
    empty = (row.key, row.source, row.file, row.row, row.url, (), "", "", None, None, "", "", "", "", "")
    return (*empty, row.reason, row.detail, *_digest(row.key))


def _digest(text: str) -> tuple[int, int]:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def _write_spill(output: str, name: str, rows: list[tuple]) -> Spill:
    columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), ROWS, strict=True)]
    table = pa.table(columns, schema=ROWS)
    high = table["high"].to_numpy()
    order = np.argsort(high, kind="stable")
    edges = np.arange(BINS, dtype=np.uint64) * np.uint64(2**64 // BINS)
    cuts = np.append(np.searchsorted(high[order], edges), len(rows)).astype("<u4")
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, ROWS, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table.take(order).combine_chunks(), BATCH_ROWS)
    path = f"{WORK_FOLDER}/rows/{name}.arrow"
    storage.write_whole(storage.join(output, *path.split("/")), buffer.getvalue())
    return Spill(path, cuts.tobytes())
