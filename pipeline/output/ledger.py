"""Counts of rows: read = kept + rejected, by source, stage and reason (`ledger.json`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import apache_beam as beam

from pipeline.output import files
from pipeline.output.files import to_json
from pipeline.output.names import LEDGER_FILE


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


READ, KEPT = "read", "kept"
Count = tuple[tuple[str, str, str], int]
"""((source, `read` or `kept` or a stage, reason or ""), rows)"""


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
    """The ledger from counts, with every named source even if its files are empty. Raises RuntimeError if a row is
    neither kept nor rejected: that is a defect of pairmill, never of the data."""
    ledger: dict[str, dict[str, Any]] = {source: {READ: 0, KEPT: 0, "rejected": {}} for source in sorted(sources)}
    for (source, what, reason), number in sorted(counts):
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
    return {"sources": ledger}


def previous_counts(ledger: dict[str, Any]) -> list[Count]:
    """The counts of earlier stages, from their ledger: rows read and rows rejected."""
    counts: list[Count] = []
    for source, rows in ledger["sources"].items():
        counts.append(((source, READ, ""), rows[READ]))
        for stage, reasons in rows["rejected"].items():
            counts.extend(((source, stage, reason), number) for reason, number in reasons.items())
    return counts


def write_ledger(output: str, ledger: dict[str, Any]) -> None:
    files.write_atomically(files.join(output, LEDGER_FILE), to_json(ledger))


def read_ledger(folder: str) -> dict[str, Any]:
    return json.loads(files.read(files.join(folder, LEDGER_FILE)))
