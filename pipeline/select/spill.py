"""Filtered rows on disk, between the two halves of select.

The first half reads file ranges of the sources and spills their rows by a hash of the URL. The second
(`url_duplicates.py`) reads one range of hashes from all spill files: it has every row of a URL, so that duplicates are
found without a shuffle. Beam moves only the names of files."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from pipeline.output import files, spill
from pipeline.output.names import ROWS_FOLDER, WORK_FOLDER
from pipeline.output.schemas import PAIRS
from pipeline.output.spill import BATCH_ROWS, SpillFile, to_batch
from pipeline.records import Pair, Rejected
from pipeline.sources.canonical_urls import canonical_url

SPILL_BATCHES = 64
"""Batches that the first half holds in memory, about 50 MB; more than `RANGE_BYTES` of most lists."""
READERS = 16
"""Requests to a store at once, of each worker."""

ROWS = pa.schema([*PAIRS, ("reason", pa.string()), ("detail", pa.string()), ("low", pa.uint64())])
"""A pair (its reason is empty) or a reject (what it has no value for is empty), and the lower half of the 128-bit hash
of its URL. The upper half is the hash by which rows are spilled."""


def write_spills(output: str, name: str, outcomes: Iterable[Pair | Rejected]) -> Iterator[SpillFile]:
    """Writes the rows of one file range, a file for each SPILL_BATCHES batches."""
    rows = map(_row, outcomes)
    batches = (to_batch(batch, ROWS) for batch in iter(lambda: list(itertools.islice(rows, BATCH_ROWS)), []))
    for number in itertools.count():
        if not (batch := list(itertools.islice(batches, SPILL_BATCHES))):
            return
        path = f"{WORK_FOLDER}/{ROWS_FOLDER}/{name}-{number:05d}.arrow"
        yield spill.write_spill(output, path, pa.Table.from_batches(batch))


class StoredRows:
    """The rows of bins [first, stop) of some spill files, to be read several times.

    A store is asked once for each file; its compressed bytes stay in memory. A local output's are read each time.
    """

    def __init__(self, output: str, spills: Sequence[SpillFile], first: int, stop: int):
        self._output, self._bins, self._spills = output, (first, stop), spills
        self._fetched: list[bytes] = []
        if not files.is_local(output):
            with ThreadPoolExecutor(READERS) as readers:
                self._fetched = list(readers.map(self._read, range(len(spills))))

    def _read(self, number: int) -> bytes:
        return spill.read_segments(self._output, self._spills[number], *self._bins)

    def table(self, number: int) -> pa.Table:
        """The rows of a spill file by its position, as a table of ROWS with their hashes."""
        data = self._fetched[number] if self._fetched else self._read(number)
        batches = spill.unpack_segments(self._spills[number], *self._bins, data, ROWS)
        return pa.Table.from_batches(batches, spill.with_hash(ROWS))


def _row(outcome: Pair | Rejected) -> tuple:
    """The values of ROWS, and the hash."""
    if isinstance(outcome, Pair):
        high, low = _digest(canonical_url(outcome.url))
        return (*outcome, "", "", low, high)
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
    high, low = _digest(outcome.key)
    return (*empty, outcome.reason, outcome.detail, low, high)


def _digest(text: str) -> tuple[int, int]:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
