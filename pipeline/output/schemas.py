"""The columns of the Parquet files that every stage writes."""

from __future__ import annotations

import pyarrow as pa

_size = ("width", pa.int32()), ("height", pa.int32())
_origin = ("source", pa.string()), ("file", pa.string()), ("row", pa.int64()), ("url", pa.string())
PAIRS = pa.schema(
    [
        ("key", pa.string()),
        *_origin,
        ("fallback_urls", pa.list_(pa.string())),
        ("caption", pa.string()),
        ("raw_caption", pa.string()),
        *_size,
        ("licence", pa.string()),
        ("page_url", pa.string()),
        ("split", pa.string()),
        ("expected_sha256", pa.string()),
        ("stored_at", pa.string()),
    ]
)
REJECTS = pa.schema(
    [
        ("key", pa.string()),
        *_origin,
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
INDEX = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        *_origin,
        ("caption", pa.string()),
        *_size,
        ("licence", pa.string()),
        ("page_url", pa.string()),
        ("sha256", pa.string()),
        ("phash", pa.string()),
        ("shard", pa.string()),
        ("position", pa.int32()),
        ("crop_boxes", pa.list_(pa.list_(pa.int32(), 6))),  # draws x models.pixels.CropBox
    ]
)
