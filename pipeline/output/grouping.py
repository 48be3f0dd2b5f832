"""Rows to groups by a hash of their key: the same groups for any number of workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apache_beam as beam

from models.hashing import stable_hash
from pipeline.records import EncodedPair, Pair, Rejected

OutputRow = Pair | Rejected | EncodedPair
"""Rows of the files that stages write."""


def grouped_by_hash(rows, number_of_groups, hash_of: Callable[[Any], int]):
    """(group, rows) for every group below the singleton PCollection `number_of_groups`, empty ones included.

    `hash_of` gives 64 bits; a group is a contiguous range of them, so groups in order are also rows in order of hash.
    """
    total = beam.pvalue.AsSingleton(number_of_groups)
    grouped = rows | "Group" >> beam.Map(
        lambda row, total: (hash_of(row) * total >> 64, row), total=total
    ).with_output_types(tuple[int, Any])
    # A marker for each group makes the empty ones appear.
    markers = number_of_groups | "Every group" >> beam.FlatMap(
        lambda total: [(i, None) for i in range(total)]
    ).with_output_types(tuple[int, Any])
    return (
        (grouped, markers)
        | "With empty" >> beam.Flatten()
        | "Gather" >> beam.GroupByKey()
        | "Drop markers"
        >> beam.MapTuple(lambda i, members: (i, [row for row in members if row is not None])).with_output_types(
            tuple[int, list[Any]]
        )
    )


def sort_key(row: OutputRow) -> tuple:
    return row.source, row.file, row.row, row.key


def row_hash(row: OutputRow) -> int:
    return stable_hash(*sort_key(row))


def key_hash(row: OutputRow) -> int:
    """Keys are hashes already."""
    return int(row.key[:16], 16)
