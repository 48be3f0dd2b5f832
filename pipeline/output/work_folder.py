"""Units: the pieces of work that are done whole, remembered, and not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import msgpack

from pipeline.output import files
from pipeline.records import TRANSIENT_REASONS, EncodedPair, Pair, Rejected

WORK_FOLDER = "_work"  # inside the output, while it is unfinished
FETCHED_FOLDER = "fetched"  # inside that: what fetching each shard came to


def write_plan(output: str, plan: dict[str, int]) -> None:
    files.write_atomically(files.join(output, WORK_FOLDER, "plan.json"), json.dumps(plan).encode())


class CompletedUnits:
    """Finished units of an unfinished output: what a killed job need not do again."""

    def __init__(self, output: str):
        self._folder = files.join(output, WORK_FOLDER, "units")
        self._times = files.join(output, WORK_FOLDER, "times")

    def _path(self, name: str) -> str:
        return files.join(self._folder, f"{name}.msgpack")

    def load(self, name: str) -> tuple[list[EncodedPair], list[Rejected]]:
        """What is known of a unit; ([], []) if nothing."""
        path = self._path(name)
        if not files.exists(path):
            return [], []
        body = msgpack.unpackb(files.read(path))
        return [EncodedPair._make(row) for row in body["records"]], [Rejected._make(row) for row in body["rejects"]]

    def save(self, name: str, records: list[EncodedPair], rejects: list[Rejected]) -> None:
        files.write_atomically(self._path(name), msgpack.packb({"records": records, "rejects": rejects}))

    def save_times(self, name: str, times: dict[str, float]) -> None:
        """Where a unit's time went, for those who watch the job."""
        files.write_atomically(files.join(self._times, f"{name}.json"), json.dumps(times).encode())


def resume_unit(
    name: str,
    pairs: Sequence[Pair],
    store: CompletedUnits,
    work: Callable[[list[Pair]], Iterator[EncodedPair | Rejected]],
) -> tuple[list[EncodedPair], list[Rejected]]:
    """The outcome of every pair of a unit: remembered ones as they are, the others by `work`.

    A row that failed for a reason that may pass is not remembered: a later run tries it again.
    """
    wanted = {pair.key for pair in pairs}
    records, rejects = store.load(name)
    records = [record for record in records if record.key in wanted]
    rejects = [row for row in rejects if row.key in wanted and row.reason not in TRANSIENT_REASONS]
    done = {row.key for row in records} | {row.key for row in rejects}
    pending = [pair for pair in pairs if pair.key not in done]
    if pending:
        for outcome in work(pending):
            (records if isinstance(outcome, EncodedPair) else rejects).append(outcome)
        records.sort(key=lambda row: row.key)
        rejects.sort(key=lambda row: row.key)
        store.save(name, records, rejects)
    return records, rejects
