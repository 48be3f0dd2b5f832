"""The columns of the Parquet files that every stage writes, derived from the records of `pipeline.records`."""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.records import EncodedPair, Pair, Rejected

_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    bytes: pa.binary(),
    Sequence[str]: pa.list_(pa.string()),
    Sequence[int]: pa.list_(pa.int64()),
}
_SMALL = {"width": pa.int32(), "height": pa.int32()}  # sides in px


def schema_of(record: type[NamedTuple], without: Collection[str] = ()) -> pa.Schema:
    """A column for each field of a record, in their order, but for those `without`. Optional fields have the column of
    the type itself: every column may hold nulls."""
    return pa.schema(
        (name, _SMALL.get(name) or _TYPES[_without_none(hint)])
        for name, hint in typing.get_type_hints(record).items()
        if name not in without
    )


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    [kind] = [argument for argument in typing.get_args(hint) if argument is not type(None)]
    return kind


PAIRS = schema_of(Pair)
REJECTS = schema_of(Rejected)
RECORDS = schema_of(EncodedPair)
INDEX = pa.schema(
    [
        *schema_of(EncodedPair, without=("codes", "tokens", "boxes", "signature")),
        ("shard", pa.string()),  # relative to the dataset
        ("position", pa.int32()),  # in that shard, from 0
        ("crop_boxes", pa.list_(pa.list_(pa.int32(), 6))),  # draws x models.pixels.CropBox
    ]
)
TYPES = {field.name: field.type for schema in (PAIRS, REJECTS, INDEX) for field in schema}
"""The type of each column, in whichever file it is."""
MAY_BE_NULL = frozenset({"width", "height"})
MAY_BE_MISSING = frozenset({"other_captions"})
"""Columns of lists that files of earlier versions lack: no row has anything there."""
