"""Conceptual 12M (Changpinyo et al. 2021), https://github.com/google-research-datasets/conceptual-12m

`cc12m.tsv` (12,423,374 rows): URL, tab, caption, the reverse of CC3M's order; no header and no quoting. Captions are
raw alt-texts in which a person's name is replaced by `<PERSON>`, in about a quarter of the rows. That mark stays in the
caption as it is: it stands for a word, and dropping it leaves sentences without a subject.

A second file has a row of URL, SHA256 and MD5 for each image, as its bytes were in 2021."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from models.errors import UserError
from pipeline.output import files
from pipeline.records import Candidate
from pipeline.sources.readers import WHOLE_FILE, LineStart, Row, lines, open_source
from pipeline.sources.table_source import Columns, RecordOrigin, TableSource
from pipeline.sources.tables import Record
from pipeline.sources.two_columns import caption_and_url
from pipeline.sources.url_index import open_index, write_index

NAME = "cc12m"
SHA256_BYTES = 32
PERSON = "<PERSON>"  # what the publishers put for a name


@dataclass(frozen=True)
class Cc12mSettings:
    """What a user may choose of this source."""

    hashes: str = ""  # path or URL of the file of hashes; for `read`, of what `index_hashes` made of it
    person: str = PERSON  # stands in a clean caption for the mark of a name


DEFAULT = Cc12mSettings()


def read(
    stream: BinaryIO, file: str, start: LineStart = WHOLE_FILE, settings: Cc12mSettings = DEFAULT
) -> Iterator[Row]:
    """The rows of a list, with the SHA-256 of those whose URL the index of hashes holds."""
    rows = caption_and_url(stream, file, NAME, False, start)
    return (_with_hash(row, settings.hashes) for row in rows) if settings.hashes else rows


def index_hashes(path: str, index: str) -> None:
    """Writes the hashes of the published file as an index. Raises UserError for another file."""
    if not write_index(index, read_hashes(path), SHA256_BYTES):
        raise UserError(f"{path}: no hash in it; a file of hashes has rows of URL, SHA256 and MD5")


def read_hashes(path: str) -> Iterator[tuple[str, bytes]]:
    """(URL, SHA-256) of each row of a file of hashes, with tabs or commas; a row that states no hash is left out, a
    header too. Raises UserError where the file holds anything else."""
    with open_source(path) as stream:
        for number, line in enumerate(lines(stream), 1):
            tabs = "\t" in line.text
            fields = line.text.split("\t") if tabs else line.text.rsplit(",", 2)  # URLs may hold commas
            url, sha256 = (fields[0].strip(), fields[1].strip()) if len(fields) == 3 else ("", "?")
            if line.fault or (sha256 and not _SHA256.fullmatch(sha256)):
                if number == 1 and not line.fault and sha256.lower() == "sha256":
                    continue
                fault = line.fault or "not a row of URL, SHA256 and MD5"
                raise UserError(f"{path}, line {number}: {fault}; give CC12M's file of hashes as published")
            if sha256:
                yield url, bytes.fromhex(sha256)


_SHA256 = re.compile("[0-9a-fA-F]{64}")


def _with_hash(row: Row, path: str) -> Row:
    known = open_index(path, SHA256_BYTES).get(row.url) if path and isinstance(row, Candidate) else None
    return row._replace(expected_sha256=known.hex()) if known and isinstance(row, Candidate) else row


class Cc12m(TableSource[Cc12mSettings]):
    """Conceptual 12M as a source of select."""

    name = NAME
    settings = DEFAULT

    columns = dataclasses.replace(Columns(), sha256=())  # of the image as img2dataset stored it, not as published

    def row_of(self, record: Record, origin: RecordOrigin, settings: Cc12mSettings) -> Row:
        return _with_hash(super().row_of(record, origin, settings), settings.hashes)

    def read(self, stream: BinaryIO, file: str, start: LineStart, settings: Cc12mSettings) -> Iterator[Row]:
        return read(stream, file, start, settings)

    def prepare(self, settings: Cc12mSettings, folder: str) -> Cc12mSettings:
        if not settings.hashes:
            return settings
        index = files.join(folder, "cc12m_hashes.index")
        if not files.exists(index):
            index_hashes(settings.hashes, index)
        return dataclasses.replace(settings, hashes=index)

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--cc12m-person",
            default=PERSON,
            metavar="TEXT",
            help=f"text that replaces {PERSON}, CC12M's mark of a name",
        )
        group.add_argument(
            "--cc12m-hashes",
            metavar="FILE",
            help="file of URL, SHA256 and MD5 that CC12M's publisher has; an image with another SHA256 is rejected "
            "as a hash_mismatch",
        )

    def settings_from(self, args: argparse.Namespace) -> Cc12mSettings:
        return Cc12mSettings(hashes=args.cc12m_hashes or "", person=args.cc12m_person)

    def recorded(self, settings: Cc12mSettings) -> dict[str, Any]:
        return {NAME: {"hashes": settings.hashes}, "cc12m_person": settings.person}

    def side_files(self, settings: Cc12mSettings) -> list[str]:
        return [settings.hashes] if settings.hashes else []

    def tidy_caption(self, caption: str, settings: Cc12mSettings) -> str:
        return caption if settings.person == PERSON else " ".join(caption.replace(PERSON, settings.person).split())
