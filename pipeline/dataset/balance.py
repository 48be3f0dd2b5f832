"""Balance: how much a concept, a host or a source may contribute to a dataset.

As MetaCLIP (Xu and others, 2023, algorithm 1) balances concepts, a group of `count` pairs keeps each of them with the
chance limit / count, so that about `limit` remain; a pair of several groups stays if one of them keeps it. The chance
is drawn from the hash of key and group. Records are read twice, to count and to decide; counts move through spill
files, and only the groups above the limit are a table in memory.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from models.hashing import in_share, stable_hash
from pipeline.dataset.balance_report import ALL_PAIRS, PartialReport, partial_report
from pipeline.dataset.concepts import Concepts, read_concepts
from pipeline.output import schemas
from pipeline.output.grouping import key_hash
from pipeline.output.spill import (
    HashRange,
    HashRanges,
    Spill,
    SpillFile,
    read_spilled,
    rows_as,
    spill_path,
    with_hash,
    write_spill,
)
from pipeline.records import REJECTED_TAG, EncodedPair, Reason, Rejected, Stage, reject
from pipeline.sources.url_hosts import host_of

HOST, SOURCE, CONCEPT = "host", "source", "concept"
NO_HOST = "(no host)"
SALT = "pairmill balance 1"
COUNTS_TAG = "counts"
RECORDS_PER_RANGE = 10_000  # about 30 MB
COUNTS_PER_RANGE = 500_000  # about 30 MB
MAX_NAMED = 10  # groups that the detail of a reject names


@dataclass(frozen=True)
class Balance:
    """What is balanced, and how."""

    by: str  # HOST, SOURCE or CONCEPT
    limit: int  # pairs that a group keeps, on average
    concepts_path: str = ""  # of CONCEPT: the file of phrases, where workers can read it
    concepts_sha256: str = ""

    def groups_of(self, record: EncodedPair) -> list[str]:
        """The groups that a record counts in; [] if its caption has none of the concepts."""
        if self.by == CONCEPT:
            return _concepts(self.concepts_path, self.concepts_sha256).found_in(record.caption)
        return [record.source if self.by == SOURCE else host_of(record.url) or NO_HOST]


@functools.lru_cache(maxsize=1)  # of each process: 500,000 phrases take about 100 MB
def _concepts(path: str, sha256: str) -> Concepts:
    """`sha256` tells files apart that have lain at the same path."""
    return read_concepts(path)


class BalancedRecords(NamedTuple):
    """PCollections: the records that stay, the rejects, and the parts of the report."""

    records: beam.PCollection
    rejected: beam.PCollection
    reports: beam.PCollection


class BalanceRecords(beam.PTransform):
    """Records -> those to keep, as BalancedRecords."""

    def __init__(self, balance: Balance, output: str):
        self._balance, self._output = balance, output

    def expand(self, records) -> BalancedRecords:
        balance, output = self._balance, self._output
        stored = records | "Records" >> Spill(output, schemas.RECORDS, key_hash)
        ranges = stored | "Ranges" >> HashRanges(RECORDS_PER_RANGE)
        counted = ranges | "Count" >> beam.FlatMap(
            spill_counts, beam.pvalue.AsList(stored), balance, output
        ).with_output_types(SpillFile)
        above = (
            counted
            | "Groups" >> HashRanges(COUNTS_PER_RANGE)
            | "Above the limit"
            >> beam.FlatMap(groups_above, beam.pvalue.AsList(counted), balance.limit, output).with_output_types(
                tuple[str, int]
            )
        )
        decided = ranges | "Decide" >> beam.ParDo(
            _Decide(balance, output), beam.pvalue.AsList(stored), beam.pvalue.AsDict(above)
        ).with_outputs(REJECTED_TAG, COUNTS_TAG, main="records")
        both = decided[COUNTS_TAG]
        reports = (
            both
            | "Reported groups" >> HashRanges(COUNTS_PER_RANGE)
            | "Report" >> beam.Map(report_range, beam.pvalue.AsList(both), balance.limit, output)
        )
        return BalancedRecords(decided.records, decided[REJECTED_TAG], reports)


# --- counts ----------------------------------------------------------------------------------------------------------

COUNTS = pa.schema([("name", pa.string()), ("before", pa.int64()), ("after", pa.int64())])
"""Pairs of a group among some records, and those of them that stay."""


def spill_counts(hashes: HashRange, stored: list[SpillFile], balance: Balance, output: str) -> Iterator[SpillFile]:
    """How many records of a range each group has."""
    counts = Counter(
        name
        for record in rows_as(EncodedPair, read_spilled(output, stored, schemas.RECORDS, *hashes.bounds))
        for name in balance.groups_of(record)
    )
    yield from _write_counts(counts, {}, output)


def _write_counts(before: Mapping[str, int], after: Mapping[str, int], output: str) -> Iterator[SpillFile]:
    if before:
        names = sorted(before)
        columns = [names, [before[name] for name in names], [after.get(name, 0) for name in names]]
        table = pa.table([*columns, pa.array(map(stable_hash, names), pa.uint64())], schema=with_hash(COUNTS))
        yield write_spill(output, spill_path(), table)


def _sums(hashes: HashRange, counts: list[SpillFile], output: str) -> pa.Table:
    """The sums of the counts of the groups of a range: name, before, after; sorted by name."""
    table = read_spilled(output, counts, COUNTS, *hashes.bounds)
    sums = table.group_by("name").aggregate([("before", "sum"), ("after", "sum")])
    return sums.rename_columns(COUNTS.names).sort_by("name")


def groups_above(hashes: HashRange, counts: list[SpillFile], limit: int, output: str) -> list[tuple[str, int]]:
    """The groups of a range that have more pairs than the limit, with their number."""
    sums = _sums(hashes, counts, output)
    sums = sums.filter(pc.greater(sums["before"], limit))
    return list(zip(sums["name"].to_pylist(), sums["before"].to_pylist(), strict=True))


def report_range(hashes: HashRange, counts: list[SpillFile], limit: int, output: str) -> PartialReport:
    return partial_report(_sums(hashes, counts, output), limit)


# --- decisions -------------------------------------------------------------------------------------------------------


class _Decide(beam.DoFn):
    def __init__(self, balance: Balance, output: str):
        self._balance, self._output = balance, output

    def process(self, hashes: HashRange, stored: list[SpillFile], above: dict[str, int]):
        before: Counter[str] = Counter()
        after: Counter[str] = Counter()
        for record in rows_as(EncodedPair, read_spilled(self._output, stored, schemas.RECORDS, *hashes.bounds)):
            groups = self._balance.groups_of(record)
            before.update((ALL_PAIRS, *groups))
            if rejected := rejection(record, groups, above, self._balance):
                yield beam.pvalue.TaggedOutput(REJECTED_TAG, rejected)
            else:
                after.update((ALL_PAIRS, *groups))
                yield record
        for spill in _write_counts(before, after, self._output):
            yield beam.pvalue.TaggedOutput(COUNTS_TAG, spill)


def rejection(record: EncodedPair, groups: list[str], above: Mapping[str, int], balance: Balance) -> Rejected | None:
    """The reject of a record that none of its groups keeps, or None. `above` has the groups above the limit."""
    if not groups:
        return reject(record, Stage.ENCODE, Reason.NO_CONCEPT, "its caption has none of the concepts")
    if any(_keeps(record.key, name, above.get(name, 0), balance.limit) for name in groups):
        return None
    named = ", ".join(f"{name} {above[name]}" for name in groups[:MAX_NAMED])
    return reject(record, Stage.ENCODE, Reason.BALANCED_OUT, f"{balance.by} {named}; limit {balance.limit}")


def _keeps(key: str, name: str, count: int, limit: int) -> bool:
    return count <= limit or in_share(stable_hash(SALT, key, name), limit / count)
