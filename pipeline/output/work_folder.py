"""Units: the pieces of work that are done whole, remembered, and not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import msgpack

from pipeline.output import files
from pipeline.output.parquet import grouped_by_hash, key_hash
from pipeline.records import PASSING_REASONS, Pair, Record, Rejected
from pipeline.sources.stored_images import place_hash

WORK_FOLDER = "_work"  # inside the output, while it is unfinished
FETCHED_FOLDER = "fetched"  # inside that: what fetching each shard came to


class Unit(NamedTuple):
    """Some of the pairs, by `unit_hash`; sorted by key."""

    number: int
    of: int
    pairs: Sequence[Pair]

    @property
    def name(self) -> str:
        return f"{self.number:05d}-of-{self.of:05d}"


class ToUnits(beam.PTransform):
    """Pairs -> units of about `pairs_per_unit`. The one shuffle before fetching: it moves rows, not pictures, and
    mixes hosts, since a source's order does not survive hashing."""

    def __init__(self, pairs_per_unit: int, output: str):
        self._pairs_per_unit, self._output = pairs_per_unit, output

    def expand(self, pairs):
        number = (
            pairs
            | "Count" >> beam.combiners.Count.Globally()
            | "Plan" >> beam.Map(plan_units, self._pairs_per_unit, self._output)
        )
        return grouped_by_hash(pairs, number, unit_hash) | "Sort" >> beam.Map(
            to_unit, beam.pvalue.AsSingleton(number)
        ).with_output_types(Unit)


def unit_hash(pair: Pair) -> int:
    """By key, but pictures that a source's file holds go as they lie there: few units then read one file."""
    return place_hash(pair.stored_at) if pair.stored_at else key_hash(pair)


def plan_units(pairs: int, pairs_per_unit: int, output: str) -> int:
    """The number of units, which it also leaves in the output for those who watch the job."""
    units = max(1, -(-pairs // pairs_per_unit))
    write_plan(output, {"pairs": pairs, "units": units})
    return units


def write_plan(output: str, plan: dict[str, int]) -> None:
    files.write_whole(files.join(output, WORK_FOLDER, "plan.json"), json.dumps(plan).encode())


def to_unit(group: tuple[int, Iterable[Pair]], of: int) -> Unit:
    return Unit(group[0], of, sorted(group[1], key=lambda pair: pair.key))


class UnitStore:
    """Finished units of an unfinished output: what a killed job need not do again."""

    def __init__(self, output: str):
        self._folder = files.join(output, WORK_FOLDER, "units")
        self._times = files.join(output, WORK_FOLDER, "times")

    def _path(self, name: str) -> str:
        return files.join(self._folder, f"{name}.msgpack")

    def load(self, name: str) -> tuple[list[Record], list[Rejected]]:
        """What is known of a unit; ([], []) if nothing."""
        path = self._path(name)
        if not files.exists(path):
            return [], []
        body = msgpack.unpackb(files.read(path))
        return [Record(*row) for row in body["records"]], [Rejected(*row) for row in body["rejects"]]

    def save(self, name: str, records: list[Record], rejects: list[Rejected]) -> None:
        files.write_whole(self._path(name), msgpack.packb({"records": records, "rejects": rejects}))

    def save_times(self, name: str, times: dict[str, float]) -> None:
        """Where a unit's time went, for those who watch the job."""
        files.write_whole(files.join(self._times, f"{name}.json"), json.dumps(times).encode())


def finish_unit(
    name: str,
    pairs: Sequence[Pair],
    store: UnitStore,
    work: Callable[[list[Pair]], Iterator[Record | Rejected]],
) -> tuple[list[Record], list[Rejected]]:
    """The outcome of every pair of a unit: remembered ones as they are, the others by `work`.

    A row that failed for a reason that may pass is not remembered: a later run tries it again.
    """
    wanted = {pair.key for pair in pairs}
    records, rejects = store.load(name)
    records = [record for record in records if record.key in wanted]
    rejects = [row for row in rejects if row.key in wanted and row.reason not in PASSING_REASONS]
    done = {row.key for row in records} | {row.key for row in rejects}
    pending = [pair for pair in pairs if pair.key not in done]
    if pending:
        for outcome in work(pending):
            (records if isinstance(outcome, Record) else rejects).append(outcome)
        records.sort(key=lambda row: row.key)
        rejects.sort(key=lambda row: row.key)
        store.save(name, records, rejects)
    return records, rejects
