"""img2dataset's layout: columns, reasons, the metadata of one shard."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.output import files
from pipeline.records import Reason

# Of images that arrived and are of no use; img2dataset calls those "failed_to_resize".
INVALID_IMAGE_REASONS = frozenset(
    {Reason.NOT_AN_IMAGE, Reason.CORRUPT_IMAGE, Reason.TOO_MANY_PIXELS, Reason.ASPECT_RATIO, Reason.TOO_SMALL}
)
SOURCE = "img2dataset"  # of images that another tool has fetched
VAL_SHARE = 0.01  # of those, too
_PAIR_FIELDS = [
    ("pair_key", pa.string()),
    ("source", pa.string()),
    ("file", pa.string()),
    ("row", pa.int64()),
    ("fallback_urls", pa.list_(pa.string())),
    ("raw_caption", pa.string()),
    ("licence", pa.string()),
    ("page_url", pa.string()),
    ("split", pa.string()),
    ("source_width", pa.int32()),
    ("source_height", pa.int32()),
]
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
        *_PAIR_FIELDS,
        ("reason", pa.string()),
    ]
)


def read_metadata(folder: str, number: int) -> Iterable[dict]:
    """The rows of a unit's Parquet file; none if there is no such file."""
    path = files.join(folder, f"{number:05d}.parquet")
    return pq.read_table(io.BytesIO(files.read(path))).to_pylist() if files.exists(path) else []
