"""The order of rows in files, and the hashes that divide them into groups: the same for any number of workers."""

from __future__ import annotations

from models.hashing import stable_hash
from pipeline.records import EncodedPair, Pair, Rejected

OutputRow = Pair | Rejected | EncodedPair
"""Rows of the files that stages write."""


SORT_COLUMNS = ("source", "file", "row", "key")
"""The order of rows in files."""


def sort_key(row: OutputRow) -> tuple:
    return tuple(getattr(row, name) for name in SORT_COLUMNS)


def row_hash(row: OutputRow) -> int:
    return stable_hash(*sort_key(row))


def key_hash(row: OutputRow) -> int:
    """Keys are hashes already."""
    return int(row.key[:16], 16)
