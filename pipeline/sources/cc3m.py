"""Conceptual Captions (Sharma et al. 2018), https://ai.google.com/research/ConceptualCaptions/download

`Train_GCC-training.tsv` (3,318,333 rows) and `Validation_GCC-1.1.0-Validation.tsv` (15,840): caption, tab, URL; no
header and no quoting. Captions are lower-cased and tokenised ("our planet is ."), names are replaced by "person" and
the like. `Image_Labels_Subset_Train_GCC-Labels-training.tsv` (2,007,090 rows) adds three lists; its first two columns
are read. The row number is the only id that other tools know.

Copies with names for the columns, as CSV, Parquet or JSON, are read by those of `Columns`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipeline.sources.readers import WHOLE_FILE, LineStart, Row
from pipeline.sources.table_source import TableSource
from pipeline.sources.two_columns import caption_and_url
from pipeline.text.captions import detokenise

NAME = "cc3m"


@dataclass(frozen=True)
class Cc3mSettings:
    """What a user may choose of this source."""

    undo_spacing: bool = True  # captions are spaced as text again: "our planet is."


DEFAULT = Cc3mSettings()


def read(stream: BinaryIO, file: str, start: LineStart = WHOLE_FILE) -> Iterator[Row]:
    """The rows of a list."""
    return caption_and_url(stream, file, NAME, True, start)


class Cc3m(TableSource[Cc3mSettings]):
    """Conceptual Captions as a source of select."""

    name = NAME
    settings = DEFAULT

    def read(self, stream: BinaryIO, file: str, start: LineStart, settings: Cc3mSettings) -> Iterator[Row]:
        return read(stream, file, start)

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--keep-cc3m-spacing",
            action="store_true",
            help="keep the spaces between CC3M's tokens, such as those before commas",
        )

    def settings_from(self, args: argparse.Namespace) -> Cc3mSettings:
        return Cc3mSettings(undo_spacing=not args.keep_cc3m_spacing)

    def recorded(self, settings: Cc3mSettings) -> dict[str, Any]:
        return {"undo_cc3m_spacing": settings.undo_spacing}

    def tidy_caption(self, caption: str, settings: Cc3mSettings) -> str:
        return detokenise(caption) if settings.undo_spacing else caption
