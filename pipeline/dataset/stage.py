"""Records and rejects to the files of a dataset, all but the manifest."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NamedTuple, cast

import apache_beam as beam

from models.hashing import stable_hash
from pipeline.dataset.balance import Balance, BalanceRecords
from pipeline.dataset.near_duplicates import DropNearDuplicates, NearDuplicateConfig
from pipeline.dataset.shard_boundaries import ShardSize
from pipeline.dataset.shards import WriteShards
from pipeline.output import parquet, schemas
from pipeline.output.grouping import key_hash
from pipeline.output.ledger import KEPT, CountRows
from pipeline.output.names import REJECTS_FOLDER
from pipeline.output.spill import HashRange, HashRanges, Spill, SpillFile, read_spilled, rows_as
from pipeline.records import REJECTED_TAG, EncodedPair, Reason, Rejected, Stage, kept_instead, reject
from pipeline.sources.precedence import preferred_pair


class WrittenDataset(NamedTuple):
    """PCollections: the shards, the files of rejects, the ledger's counts of kept and rejected rows."""

    shards: beam.PCollection
    rejects: beam.PCollection
    counts: beam.PCollection
    balance: tuple[beam.PCollection, ...] = ()  # of the parts of its report, if it was balanced


class WriteDataset(beam.PTransform):
    """(records, rejects), two tuples of PCollections -> shards, index, reject files. Duplicate pairs become rejects."""

    def __init__(
        self,
        output: str,
        draws: int,
        size: ShardSize,
        rows_per_file: int,
        near: NearDuplicateConfig = NearDuplicateConfig(),  # noqa: B008 (immutable)
        balance: Balance | None = None,
    ):
        self._output, self._draws, self._near, self._balance = output, draws, near, balance
        self._size, self._rows_per_file = size, rows_per_file

    def expand(self, inputs) -> WrittenDataset:
        records, rejected = inputs
        single = records | "Same pair" >> DropSamePairs(self._output)
        all_rejected = [*rejected, single[REJECTED_TAG]]
        kept = single.records
        if self._near.on:
            remaining = kept | "Near-duplicates" >> DropNearDuplicates(self._near, self._output)
            kept, all_rejected = remaining.records, [*all_rejected, remaining[REJECTED_TAG]]
        reports: tuple[beam.PCollection, ...] = ()
        if self._balance:
            balanced = kept | "Balance" >> BalanceRecords(self._balance, self._output)
            kept, all_rejected, reports = balanced.records, [*all_rejected, balanced.rejected], (balanced.reports,)
        counts = [rows | f"Count rejected {number}" >> CountRows() for number, rows in enumerate(all_rejected)]
        return WrittenDataset(
            shards=kept | "Shards" >> WriteShards(self._output, self._draws, self._size),
            rejects=tuple(all_rejected)
            | "Write rejects"
            >> parquet.WriteParquet(self._output, REJECTS_FOLDER, schemas.REJECTS, self._rows_per_file),
            counts=(kept | "Count kept" >> CountRows(KEPT), *counts) | "Counts" >> beam.Flatten(),
            balance=reports,
        )


RECORDS_PER_GROUP = 10_000  # about 30 MB


class DropSamePairs(beam.PTransform):
    """Records -> those that stay of each image and caption (mirrors, re-uploads): the first by source, file and row.
    The others are rejects, under their tag."""

    def __init__(self, output: str):
        self._output = output

    def expand(self, records):
        return records | "By image" >> _KeepFirstOf(self._output, pair_hash, keep_first)


class DropSameKeys(beam.PTransform):
    """Records -> those that stay of each key, as select would have it: rows with one URL and one caption, perhaps with
    other bytes. The others are rejects, under their tag."""

    def __init__(self, output: str):
        self._output = output

    def expand(self, records):
        return records | "By key" >> _KeepFirstOf(self._output, key_hash, keep_first_of_key)


class _KeepFirstOf(beam.PTransform):
    def __init__(
        self,
        output: str,
        hash_of: Callable[[EncodedPair], int],
        keep: Callable[[Iterable[EncodedPair]], Iterator[EncodedPair | Rejected]],
    ):
        self._output, self._hash_of, self._keep = output, hash_of, keep

    def expand(self, records):
        spills = records | "Spill" >> Spill(self._output, schemas.RECORDS, self._hash_of)
        return (
            spills
            | "Groups" >> HashRanges(RECORDS_PER_GROUP)
            | "Keep first"
            >> beam.ParDo(_KeepFirst(self._output, self._keep), beam.pvalue.AsList(spills)).with_outputs(
                REJECTED_TAG, main="records"
            )
        )


class _KeepFirst(beam.DoFn):
    def __init__(self, output: str, keep: Callable[[Iterable[EncodedPair]], Iterator[EncodedPair | Rejected]]):
        self._output, self._keep = output, keep

    def process(self, hashes: HashRange, spills: list[SpillFile]):
        table = read_spilled(self._output, spills, schemas.RECORDS, *hashes.bounds)
        for row in self._keep(rows_as(EncodedPair, table)):
            yield row if isinstance(row, EncodedPair) else beam.pvalue.TaggedOutput(REJECTED_TAG, row)


def pair_hash(record: EncodedPair) -> int:
    """The same for the same image and caption."""
    return stable_hash(record.sha256, record.caption)


def keep_first(records: Iterable[EncodedPair]) -> Iterator[EncodedPair | Rejected]:
    """Of records with the same image and caption the first by source, file and row, and the rejects of the others."""
    return _first_of(records, lambda record: (record.sha256, record.caption), (Stage.ENCODE, Reason.DUPLICATE_PAIR))


def keep_first_of_key(records: Iterable[EncodedPair]) -> Iterator[EncodedPair | Rejected]:
    """Of records with the same key the first by source, file and row, and the rejects of the others."""
    return _first_of(records, lambda record: record.key, (Stage.SELECT, Reason.DUPLICATE_URL))


def _first_of(
    records: Iterable[EncodedPair], identity: Callable[[EncodedPair], Hashable], why: tuple[Stage, Reason]
) -> Iterator[EncodedPair | Rejected]:
    groups: dict[Hashable, list[EncodedPair]] = {}
    for record in records:
        groups.setdefault(identity(record), []).append(record)
    for group in groups.values():
        first = cast(EncodedPair, preferred_pair(group))
        yield first
        for record in group:
            if record is not first:
                yield reject(record, *why, kept_instead(first.key))
