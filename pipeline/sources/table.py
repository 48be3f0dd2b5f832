"""Any list of URLs and captions: LAION, COYO, DataComp, DreamLIP, one's own.

Parquet, CSV, TSV, JSON and JSON lines, packed or not. Columns are known by common names (`Columns`) or named by
`--column FIELD=COLUMN`; several for the caption are its texts, the best first."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from models.errors import UserError
from pipeline.sources.table_source import Columns, TableSource

NAME = "table"
FIELDS = {
    "url": "url",
    "caption": "captions",
    "width": "width",
    "height": "height",
    "licence": "licence",
    "page_url": "page_url",
    "mime_type": "mime_type",
    "sha256": "sha256",
}
"""What `--column` may name: the option's words, and the fields of Columns."""


@dataclass(frozen=True)
class TableSettings:
    """What a user may choose of this source."""

    columns: tuple[str, ...] = ()  # FIELD=COLUMN each


DEFAULT = TableSettings()


def columns_from(named: Iterable[str]) -> Columns:
    """The columns that `--column` names; of the others, those with common names. Raises UserError for an unknown
    field."""
    chosen: dict[str, list[str]] = {}
    for text in named:
        field, _, column = text.partition("=")
        if field not in FIELDS or not column.strip():
            raise UserError(f"--column {text}: give FIELD=COLUMN with one of the fields {', '.join(FIELDS)}")
        chosen.setdefault(FIELDS[field], []).append(column.strip().lower())
    return dataclasses.replace(Columns(), **{field: tuple(columns) for field, columns in chosen.items()})


class Table(TableSource[TableSettings]):
    """Any table of URLs and captions as a source of select."""

    name = NAME
    settings = DEFAULT

    def columns_of(self, settings: TableSettings) -> Columns:
        return columns_from(settings.columns)

    def settings_of_check(self, settings: TableSettings) -> TableSettings:
        return settings

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--column",
            action="append",
            default=[],
            metavar="FIELD=COLUMN",
            help=f"column of a table= that holds FIELD, one of {', '.join(FIELDS)}; of several captions the first that "
            "passes is kept; repeatable",
        )

    def settings_from(self, args: argparse.Namespace) -> TableSettings:
        columns_from(args.column)  # raises UserError before anything is read
        return TableSettings(tuple(args.column))

    def recorded(self, settings: TableSettings) -> dict[str, Any]:
        return {NAME: {"columns": settings.columns}} if settings.columns else {}
