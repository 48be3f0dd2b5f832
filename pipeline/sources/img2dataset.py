"""What img2dataset (https://github.com/rom1504/img2dataset) wrote: `NNNNN.parquet` with a row for each URL that it was
given, failures included, beside the tar, folder or Parquet of pictures; and any Parquet file with a column of URLs and
one of captions, which is what img2dataset reads.

Its pictures are not fetched again: they are read from the tar, the folder or the Parquet file. Rows that failed there
are fetched: a picture that did not answer then may answer now."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from pipeline.records import Candidate, unreadable
from pipeline.sources.places import absolute, exists
from pipeline.sources.tables import Row, parquet_columns, parquet_records, pixels

NAME = "img2dataset"
URL_COLUMNS = ("url", "image_url")
PICTURE_COLUMNS = ("jpg", "png", "webp")
CAPTION_COLUMNS = ("caption", "text", "alt", "alt_text")


def metadata_pattern(pattern: str) -> str:
    """The Parquet files of an output that is named by its folder or by its tars."""
    if os.path.isdir(pattern):
        return os.path.join(pattern, "*.parquet")
    return f"{pattern.removesuffix('.tar')}.parquet" if pattern.endswith(".tar") else pattern


def read(stream: BinaryIO, file: str, path: str = "") -> Iterator[Row]:
    """The rows; `stream` must be able to seek. `path`: where a later stage finds the file."""
    wanted = (*URL_COLUMNS, *CAPTION_COLUMNS, "original_width", "original_height", "key", "status")
    store = _store(absolute(path), parquet_columns(stream)) if path else ""
    for row, (record, fault) in enumerate(parquet_records(stream, wanted, (URL_COLUMNS, CAPTION_COLUMNS))):
        yield unreadable(NAME, file, row, "", fault) if fault else _candidate(record, file, row, store)


def _store(path: str, columns: Sequence[str]) -> str:
    """What holds the pictures of a Parquet file's rows: itself, the tar or the folder beside it; "" if nothing does."""
    beside = path.removesuffix(".parquet")
    if "key" not in columns or "status" not in columns or beside == path:
        return ""
    if set(PICTURE_COLUMNS) & set(columns):
        return path
    if exists(f"{beside}.tar"):
        return f"{beside}.tar"
    return beside if os.path.isdir(beside) else ""


def _candidate(record: Mapping[str, Any], file: str, row: int, store: str) -> Row:
    url, caption = _first(record, URL_COLUMNS), _first(record, CAPTION_COLUMNS)
    if not isinstance(url, str) or not isinstance(caption, str):
        return unreadable(NAME, file, row, f"{url}\t{caption}", "the URL or the caption is not text")
    width, height = (pixels(record.get(name)) for name in ("original_width", "original_height"))
    place = row if store.endswith(".parquet") else record.get("key")
    stored_at = f"{store}#{place}" if store and record.get("status") == "success" else ""
    return Candidate(NAME, file, row, url.strip(), (), caption, width, height, "", "", "", stored_at=stored_at)


def _first(record: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """The value of the first of the columns that the file has, "" for null."""
    value = next(record[column] for column in columns if column in record)
    return "" if value is None else value
