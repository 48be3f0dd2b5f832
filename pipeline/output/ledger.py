"""Counts of rows: read = kept + rejected, by source, stage and reason (`ledger.json`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

import apache_beam as beam
import msgspec

from models import files as models_files
from models.data.format import Count as Number
from models.errors import UserError
from pipeline.output import files
from pipeline.output.files import to_json
from pipeline.output.names import LEDGER_FILE


class _Rows(TypedDict):
    read: Number
    kept: Number
    rejected: dict[str, dict[str, Number]]  # stage -> reason -> rows


class _Sources(TypedDict):
    sources: dict[str, _Rows]


class _Pairs(TypedDict):
    before: Number
    after: Number


class Groups(_Pairs):
    groups: Number


class _Size(_Pairs):  # counts of groups, not of pairs
    to: Number


class _Group(_Pairs):
    name: str


class BalanceReport(TypedDict):
    """What balancing has changed. A group is a concept, a host or a source."""

    by: str
    limit: Number  # pairs that a group keeps, on average
    pairs: _Pairs
    head: Groups  # those that had more pairs than the limit
    tail: Groups
    sizes: list[_Size]  # groups of up to `to` pairs, and of more than the entry before
    largest: list[_Group]


class _Ledger(_Sources, total=False):
    damaged_files: dict[str, list[str]]  # source -> names
    balance: BalanceReport


def rejects_by_reason(ledger: dict[str, Any]) -> dict[str, dict[str, int]]:
    """stage -> reason -> rows, over all sources, most frequent first."""
    table: dict[str, dict[str, int]] = {}
    for rows in ledger["sources"].values():
        for stage, reasons in rows["rejected"].items():
            for reason, number in reasons.items():
                stage_table = table.setdefault(stage, {})
                stage_table[reason] = stage_table.get(reason, 0) + number
    return {
        stage: dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))) for stage, reasons in table.items()
    }


READ, KEPT, DAMAGED = "read", "kept", "damaged"
DAMAGED_FILES = "damaged_files"
Count = tuple[tuple[str, str, str], int]
"""((source, `read` or `kept` or a stage, reason or ""), rows); ((source, `damaged`, name of a file), 1)"""


class CountRows(beam.PTransform):
    """The counts of the ledger from the rows themselves (metrics may count a repeated bundle twice)."""

    def __init__(self, what: str | None = None):
        self._what = what  # READ or KEPT; None: rejects, by their own stage and reason

    def expand(self, rows):
        what = self._what
        entry = (lambda row: (row.source, what, "")) if what else (lambda row: (row.source, row.stage, row.reason))
        return (
            rows
            | "Entry" >> beam.Map(entry).with_output_types(tuple[str, str, str])
            | "Count" >> beam.combiners.Count.PerElement()
        )


def build_ledger(counts: Iterable[Count], sources: Iterable[str]) -> dict[str, Any]:
    """The ledger from counts, with every named source even if its files are empty, and the files that could not be
    read to their end, if there are any. Raises RuntimeError if a row is neither kept nor rejected: that is a defect of
    pairmill, never of the data."""
    counts = sorted(counts)
    damaged: dict[str, list[str]] = {}
    for source, file in sorted({(source, file) for (source, what, file), _ in counts if what == DAMAGED}):
        damaged.setdefault(source, []).append(file)
    return {"sources": _rows_of_sources(counts, sources)} | ({DAMAGED_FILES: damaged} if damaged else {})


def _rows_of_sources(counts: Iterable[Count], sources: Iterable[str]) -> dict[str, dict[str, Any]]:
    ledger: dict[str, dict[str, Any]] = {source: {READ: 0, KEPT: 0, "rejected": {}} for source in sorted(sources)}
    for (source, what, reason), number in counts:
        if what == DAMAGED:
            continue
        rows = ledger.setdefault(source, {READ: 0, KEPT: 0, "rejected": {}})
        if what in (READ, KEPT):
            rows[what] += number
        else:
            stage = rows["rejected"].setdefault(what, {})
            stage[reason] = stage.get(reason, 0) + number
    for source, rows in ledger.items():
        rejected = sum(number for stage in rows["rejected"].values() for number in stage.values())
        if rows[READ] != rows[KEPT] + rejected:
            raise RuntimeError(f"{source}: {rows[READ]} rows read, but {rows[KEPT]} kept and {rejected} rejected")
    return ledger


def previous_counts(ledger: dict[str, Any]) -> list[Count]:
    """The counts of earlier stages, from their ledger: rows read, rows rejected, damaged files."""
    counts: list[Count] = []
    for source, rows in ledger["sources"].items():
        counts.append(((source, READ, ""), rows[READ]))
        for stage, reasons in rows["rejected"].items():
            counts.extend(((source, stage, reason), number) for reason, number in reasons.items())
    for source, files_of_source in ledger.get(DAMAGED_FILES, {}).items():
        counts.extend(((source, DAMAGED, file), 1) for file in files_of_source)
    return counts


def write_ledger(output: str, ledger: dict[str, Any]) -> None:
    files.write_atomically(files.join(output, LEDGER_FILE), to_json(ledger))


def read_ledger(folder: str) -> dict[str, Any]:
    """The ledger of an output, where Beam writes. Raises UserError for a file that is not as pairmill writes it."""
    path = files.join(folder, LEDGER_FILE)
    return parse_ledger(files.read(path), path)


def load_ledger(folder: str) -> dict[str, Any]:
    """The ledger of an output, local or behind a URL. Raises as `read_ledger`, and for a file that is not readable."""
    path = models_files.join(folder, LEDGER_FILE)
    try:
        return parse_ledger(models_files.read(path), path)
    except OSError as error:
        raise UserError(f"{path} is not readable: {error}; `pairmill verify` tells what else is wrong") from None


def parse_ledger(data: bytes, path: str) -> dict[str, Any]:
    """The ledger of a file's bytes. Raises UserError if they are not as pairmill writes them."""
    try:
        return dict(msgspec.json.decode(data, type=_Ledger))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable: {error}; `pairmill verify` tells what else is wrong") from None
