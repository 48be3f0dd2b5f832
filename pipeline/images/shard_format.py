"""img2dataset's layout: columns, reasons, the metadata of one shard."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.output import files
from pipeline.output.schemas import PAIRS
from pipeline.records import IMG2DATASET, Pair, Reason, Rejected, Stage, shortened

# Of images that arrived and are unusable; img2dataset calls those "failed_to_resize".
INVALID_IMAGE_REASONS = frozenset(
    {Reason.NOT_AN_IMAGE, Reason.CORRUPT_IMAGE, Reason.TOO_MANY_PIXELS, Reason.ASPECT_RATIO, Reason.TOO_SMALL}
)
SOURCE = IMG2DATASET  # of images that another tool has fetched
PAIR_COLUMNS = {  # column -> field of Pair, of those that img2dataset's own columns do not hold
    "pair_key": "key",
    "source": "source",
    "file": "file",
    "row": "row",
    "fallback_urls": "fallback_urls",
    "raw_caption": "raw_caption",
    "licence": "licence",
    "page_url": "page_url",
    "split": "split",
    "source_width": "width",
    "source_height": "height",
    "other_captions": "other_captions",
}
METADATA = pa.schema(
    [
        ("key", pa.string()),
        ("url", pa.string()),
        ("caption", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("exif", pa.string()),
        ("sha256", pa.string()),
        *(PAIRS.field(field).with_name(column) for column, field in PAIR_COLUMNS.items()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("stored_sha256", pa.string()),  # of the bytes in the tar, which --resize makes others than were fetched
    ]
)

LATER_COLUMNS = frozenset({"detail", "other_captions"})
"""Columns that outputs of earlier versions lack; a .json leaves them out where they are empty."""


def pair_columns(pair: Pair) -> dict[str, Any]:
    """The columns in which a row of metadata holds its pair."""
    values = {column: getattr(pair, field) for column, field in PAIR_COLUMNS.items()}
    lists = {"fallback_urls": list(pair.fallback_urls), "other_captions": list(pair.other_captions)}
    return {"url": pair.url, "caption": pair.caption} | values | lists


def pair_of(row: Mapping[str, Any], caption: str) -> Pair:
    """The pair of a row of metadata that `pair_columns` filled. A row may lack fields that have a default."""
    fields = {field: row[column] for column, field in PAIR_COLUMNS.items() if column in row}
    return Pair(url=row["url"], caption=caption, **fields)


def reject_columns(rejected: Rejected) -> dict[str, Any]:
    """The columns in which a row of metadata holds its reject."""
    return {
        "status": "failed_to_resize" if rejected.reason in INVALID_IMAGE_REASONS else "failed_to_download",
        "reason": rejected.reason,
        "detail": rejected.detail,
        "error_message": f"{rejected.reason}: {rejected.detail}",
    }


def rejected_of(row: Mapping[str, Any]) -> Rejected:
    """The reject of a row of metadata that `reject_columns` filled. Outputs of earlier versions have the detail in the
    error message alone."""
    detail = row["detail"] if "detail" in row else (row["error_message"] or "").removeprefix(f"{row['reason']}: ")
    return Rejected(
        key=row["pair_key"],
        source=row["source"],
        file=row["file"],
        row=row["row"],
        url=row["url"],
        stage=Stage.FETCH.value,
        reason=row["reason"],
        detail=detail,
        raw_caption=shortened(row["raw_caption"]),
    )


def read_metadata(folder: str, number: int) -> list[dict[str, Any]]:
    """The rows of a unit's Parquet file; [] if there is no such file."""
    path = files.join(folder, f"{number:05d}.parquet")
    return pq.read_table(io.BytesIO(files.read(path))).to_pylist() if files.exists(path) else []
