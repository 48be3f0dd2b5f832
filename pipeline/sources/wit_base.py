"""WIT base, Wikimedia's own release of WIT's images: https://huggingface.co/datasets/wikimedia/wit_base

Parquet with one row an image: `image_url`, `original_height`, `original_width`, `mime_type`,
`caption_attribution_description`, the image at 300 px in `image`, and `wit_features`, the texts of the pages that
show it. The same as JSON, `part-*.json.gz`, has the image as base64 in `b64_bytes`. The image's bytes are read later,
from where they lie: see `stored_images.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pipeline.records import malformed
from pipeline.sources.file_kinds import PARQUET
from pipeline.sources.paths import base_name
from pipeline.sources.readers import LineStart, Row, open_seekable, parquet_columns, parquet_records
from pipeline.sources.source import FileRange, NoSettings
from pipeline.sources.table_source import Columns, RecordOrigin, TableSource
from pipeline.sources.tables import Layout, Record
from pipeline.sources.wit_pages import TEXTS, page_candidate

__all__ = ["COLUMNS", "NAME", "TEXTS", "WitBase", "read"]

NAME = "wit-base"
COLUMNS = (
    "image_url",
    "original_height",
    "original_width",
    "mime_type",
    "caption_attribution_description",
    "wit_features",
)


def read(stream: BinaryIO, file: str, path: str = "") -> Iterator[Row]:
    """The rows of a Parquet file; `stream` must be able to seek. `path`: where a later stage finds the file."""
    holds_images = bool(path) and "image" in parquet_columns(stream)
    for row, (record, fault) in enumerate(parquet_records(stream, COLUMNS, (("image_url",), ("wit_features",)))):
        if holds_images and record:
            record["image"] = True  # its bytes are not read here
        yield _row(Record(record, fault), RecordOrigin(NAME, file, row, path))


def _row(record: Record, origin: RecordOrigin) -> Row:
    fault = record.fault or next(
        (f"no {name}" for name in ("image_url", "wit_features") if name not in record.values), ""
    )
    if fault:
        return malformed(NAME, origin.file, origin.row, record.text[:200], fault)
    return page_candidate(record.values, origin)


class WitBase(TableSource[NoSettings]):
    """Wikimedia's release of WIT's images as a source of select."""

    name = NAME
    settings = NoSettings()
    columns = Columns(url=("image_url",), captions=("wit_features",))

    def is_own(self, layout: Layout) -> bool:
        return layout.kind == PARQUET

    lines_are_rows = False

    def read_range(self, file_range: FileRange, settings: NoSettings, first_line_number: int = 0) -> Iterator[Row]:
        if not self.is_own(self.layout(file_range.path, file_range.member, settings)):
            yield from super().read_range(file_range, settings, first_line_number)
            return
        with open_seekable(file_range.path, file_range.member) as stream:
            yield from read(stream, base_name(file_range.member or file_range.path), file_range.path)

    def row_of(self, record: Record, origin: RecordOrigin, settings: NoSettings) -> Row:
        return _row(record, origin)

    def read(self, stream: BinaryIO, file: str, start: LineStart, settings: NoSettings) -> Iterator[Row]:
        return read(stream, file)
