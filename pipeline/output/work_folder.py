"""Units of work: each is done completely, saved, and not repeated by a later run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgpack

from pipeline.output import files
from pipeline.output.names import UNITS_FOLDER, WORK_FOLDER
from pipeline.records import TRANSIENT_REASONS, EncodedPair, Pair, Rejected


def unit_name(text: str) -> str:
    """32 hex digits: the name of the unit of work that a text identifies, such as the path of its input."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest_of(pairs: Iterable[Pair]) -> str:
    """16 hex digits that differ for other pairs, and for the same ones in another order."""
    return hashlib.sha256("".join(pair.key for pair in pairs).encode()).hexdigest()[:16]


class CompletedUnits:
    """Finished units of an unfinished output: work that a resumed job skips."""

    def __init__(self, output: str, record: type[Any] = EncodedPair):
        """`record` is the NamedTuple that a unit's rows become."""
        self._record = record
        self._folder = files.join(output, WORK_FOLDER, UNITS_FOLDER)

    def _path(self, name: str) -> str:
        return files.join(self._folder, f"{name}.msgpack")

    def load(self, name: str) -> tuple[list[Any], list[Rejected]]:
        """The saved records and rejects of a unit; ([], []) if it has none that can be read: then it is done again."""
        path = self._path(name)
        if not files.exists(path):
            return [], []
        try:
            body = msgpack.unpackb(files.read(path))
            return [self._record._make(row) for row in body["records"]], [*map(Rejected._make, body["rejects"])]
        except (ValueError, KeyError, TypeError, msgpack.exceptions.UnpackException):
            return [], []  # a power cut has left a part of it

    def save(self, name: str, records: list[Any], rejects: list[Rejected]) -> None:
        files.write_atomically(self._path(name), msgpack.packb({"records": records, "rejects": rejects}))


def pending_pairs(
    name: str, pairs: Sequence[Pair], store: CompletedUnits
) -> tuple[list[Any], list[Rejected], list[Pair]]:
    """The saved records (which have a key) and rejects of a unit's pairs, and the pairs that have neither.

    A row that failed for a transient reason is not done: a later run tries it again.
    """
    wanted = {pair.key for pair in pairs}
    records, rejects = store.load(name)
    records = [record for record in records if record.key in wanted]
    rejects = [row for row in rejects if row.key in wanted and row.reason not in TRANSIENT_REASONS]
    done = {row.key for row in records} | {row.key for row in rejects}
    return records, rejects, [pair for pair in pairs if pair.key not in done]


def resume_unit(
    name: str,
    pairs: Sequence[Pair],
    store: CompletedUnits,
    work: Callable[[list[Pair]], Iterator[Any]],
) -> tuple[list[Any], list[Rejected]]:
    """The records and rejects of every pair of a unit: saved ones as they are, the others by `work`."""
    records, rejects, pending = pending_pairs(name, pairs, store)
    if pending:
        add_outcomes(work(pending), records, rejects)
        store.save(name, records, rejects)
    return records, rejects


def add_outcomes(outcomes: Iterable[Any], records: list[Any], rejects: list[Rejected]) -> None:
    """Adds the outcomes of pairs that have none yet, and sorts both lists by key."""
    for outcome in outcomes:
        (rejects if isinstance(outcome, Rejected) else records).append(outcome)
    records.sort(key=lambda row: row.key)
    rejects.sort(key=lambda row: row.key)
