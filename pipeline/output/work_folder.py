"""Units of work: each is done completely, saved, and not repeated by a later run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgpack

from pipeline.output import files
from pipeline.output.names import UNITS_FOLDER, WORK_FOLDER
from pipeline.records import TRANSIENT_REASONS, EncodedPair, Pair, Rejected


class CompletedUnits:
    """Finished units of an unfinished output: work that a resumed job skips."""

    def __init__(self, output: str):
        self._folder = files.join(output, WORK_FOLDER, UNITS_FOLDER)

    def _path(self, name: str) -> str:
        return files.join(self._folder, f"{name}.msgpack")

    def load(self, name: str) -> tuple[list[EncodedPair], list[Rejected]]:
        """The saved records and rejects of a unit; ([], []) if it has none."""
        path = self._path(name)
        if not files.exists(path):
            return [], []
        body = msgpack.unpackb(files.read(path))
        return [EncodedPair._make(row) for row in body["records"]], [Rejected(*row) for row in body["rejects"]]

    def save(self, name: str, records: list[EncodedPair], rejects: list[Rejected]) -> None:
        files.write_atomically(self._path(name), msgpack.packb({"records": records, "rejects": rejects}))


def resume_unit(
    name: str,
    pairs: Sequence[Pair],
    store: CompletedUnits,
    work: Callable[[list[Pair]], Iterator[EncodedPair | Rejected]],
) -> tuple[list[EncodedPair], list[Rejected]]:
    """The records and rejects of every pair of a unit: saved ones as they are, the others by `work`.

    A row that failed for a transient reason is not saved as done: a later run tries it again.
    """
    wanted = {pair.key for pair in pairs}
    records, rejects = store.load(name)
    records = [record for record in records if record.key in wanted]
    rejects = [row for row in rejects if row.key in wanted and row.reason not in TRANSIENT_REASONS]
    done = {row.key for row in records} | {row.key for row in rejects}
    pending = [pair for pair in pairs if pair.key not in done]
    if pending:
        for outcome in work(pending):
            if isinstance(outcome, EncodedPair):
                records.append(outcome)
            else:
                rejects.append(outcome)
        records.sort(key=lambda row: row.key)
        rejects.sort(key=lambda row: row.key)
        store.save(name, records, rejects)
    return records, rejects
