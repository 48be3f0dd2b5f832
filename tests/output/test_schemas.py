"""Columns follow from records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

import pyarrow as pa
import pytest

from pipeline.output.schemas import INDEX, PAIRS, REJECTS, schema_of
from pipeline.records import Pair, Rejected


class Record(NamedTuple):
    name: str
    row: int
    data: bytes
    urls: Sequence[str]
    width: Optional[int]
    draws: Optional[int] = None


def test_a_column_for_each_field():
    assert schema_of(Record) == pa.schema(
        [
            ("name", pa.string()),
            ("row", pa.int64()),
            ("data", pa.binary()),
            ("urls", pa.list_(pa.string())),
            ("width", pa.int32()),  # of an image
            ("draws", pa.int64()),
        ]
    )


def test_fields_left_out():
    assert schema_of(Record, without=("data", "urls")).names == ["name", "row", "width", "draws"]


def test_a_type_without_a_column():
    class Odd(NamedTuple):
        value: complex

    Odd.__annotations__["value"] = complex
    with pytest.raises(KeyError):
        schema_of(Odd)


def test_the_records_of_the_stages():
    assert tuple(PAIRS.names) == Pair._fields
    assert tuple(REJECTS.names) == Rejected._fields
    assert INDEX.names[-3:] == ["shard", "position", "crop_boxes"] and "codes" not in INDEX.names
