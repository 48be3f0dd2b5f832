"""What img2dataset (https://github.com/rom1504/img2dataset) wrote: `NNNNN.parquet` with a row for each URL that it was
given, failures included, beside the tar, folder or Parquet of pictures; and any Parquet file with a column of URLs and
one of captions, which is what img2dataset reads.

Rows that failed there are read like the others: a picture that did not answer then may answer now."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import Candidate, unreadable
from pipeline.sources.tables import Row, pixels

NAME = "img2dataset"
URL_COLUMNS = ("url", "image_url")
CAPTION_COLUMNS = ("caption", "text", "alt", "alt_text")
BATCH_ROWS = 4096


def metadata_pattern(pattern: str) -> str:
    """The Parquet files of an output that is named by its folder or by its tars."""
    if os.path.isdir(pattern):
        return os.path.join(pattern, "*.parquet")
    return f"{pattern.removesuffix('.tar')}.parquet" if pattern.endswith(".tar") else pattern


def read(stream: BinaryIO, file: str) -> Iterator[Row]:
    """The rows; `stream` must be able to seek."""
    row = 0
    try:
        table = pq.ParquetFile(stream)
        names = {name.lower(): name for name in table.schema_arrow.names}
        url, caption = _first(URL_COLUMNS, names), _first(CAPTION_COLUMNS, names)
        if url is None or caption is None:
            detail = f"no column of a URL and of a caption among {', '.join(names)}"
            yield unreadable(NAME, file, row, "", detail)
            return
        sizes = [names.get(name) for name in ("original_width", "original_height")]
        columns = [column for column in (url, caption, *sizes) if column]
        for batch in table.iter_batches(BATCH_ROWS, columns=columns):
            values = [_values(batch, column) for column in (url, caption, *sizes)]
            for url_value, caption_value, width, height in zip(*values, strict=True):
                yield _candidate(url_value, caption_value, width, height, file, row)
                row += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk or the network, not the file's content
        detail = f"not readable as Parquet from here on: {' '.join(str(error).split())}"
        yield unreadable(NAME, file, row, "", detail)


def _first(choices: Sequence[str], names: dict[str, str]) -> str | None:
    return next((names[choice] for choice in choices if choice in names), None)


def _values(batch: pa.RecordBatch, column: str | None) -> list:
    return batch.column(column).to_pylist() if column else [None] * batch.num_rows


def _candidate(url: object, caption: object, width: object, height: object, file: str, row: int) -> Row:
    if not isinstance(url, str | None) or not isinstance(caption, str | None):
        return unreadable(NAME, file, row, f"{url}\t{caption}", "the URL or the caption is not text")
    return Candidate(
        NAME, file, row, (url or "").strip(), (), caption or "", pixels(width), pixels(height), "", "", ""
    )
