"""Records to token shards: groups them by shard, sorts them by key, and writes tar files and their index."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.coders import RowCoder, registry

from models.data import format
from models.data.format import index_path
from pipeline.dataset.shard_boundaries import (
    FindShardBoundaries,
    ShardRange,
    ShardSize,
    packed,
    shard_ranges,
    split_hash,
)
from pipeline.output.counts import Step, counts_of
from pipeline.output.files import WrittenFile, write_file
from pipeline.output.parquet import table_bytes
from pipeline.output.schemas import INDEX, RECORDS
from pipeline.output.spill import Spill, SpillFile, read_spilled, rows_as
from pipeline.records import EncodedPair


class WrittenShard(NamedTuple):
    """A shard and its part of the index, both on disk."""

    path: str
    split: str
    pairs: int
    bytes: int
    sha256: str
    sources: Mapping[str, int]  # source -> pairs
    licences: Mapping[str, int]  # as the sources state them -> pairs
    index_file: WrittenFile


registry.register_coder(WrittenShard, RowCoder)


class WriteShards(beam.PTransform):
    """Records -> SPLIT/NNNNN-of-MMMMM.tar and index/SPLIT-NNNNN-of-MMMMM.parquet; a split without records has none.

    The shard of a pair depends on all keys together, not on workers or order.
    """

    def __init__(self, output: str, draws: int, size: ShardSize):
        self._output, self._draws, self._size = output, draws, size

    def expand(self, records):
        spills = (
            records
            | "Count" >> beam.Map(count_grouped, self._output).with_output_types(EncodedPair)
            | "Spill" >> Spill(self._output, RECORDS, split_hash)
        )
        boundaries = records | "Boundaries" >> FindShardBoundaries(self._output, self._size, self._draws)
        return (
            boundaries
            | "Shards" >> beam.FlatMap(shard_ranges).with_output_types(ShardRange)
            | "Spread" >> beam.Reshuffle()
            | "Write"
            >> beam.Map(read_and_write, beam.pvalue.AsList(spills), self._output, self._draws).with_output_types(
                WrittenShard
            )
        )


def count_grouped(record: EncodedPair, output: str) -> EncodedPair:
    """Passes a record on, and counts it for the progress line."""
    counts_of(output).step(Step.GROUP, done=1)
    return record


def read_and_write(shard: ShardRange, spills: list[SpillFile], output: str, draws: int) -> WrittenShard:
    """Writes the shard of the records whose keys are in a range."""
    table = read_spilled(output, spills, RECORDS, *shard.hashes)
    records = (record for record in rows_as(EncodedPair, table) if shard.contains(record.split, record.key))
    written = write_shard(output, draws, (shard.split, shard.number, shard.total), records)
    counts_of(output).step(Step.SHARDS, done=written.pairs)
    return written


def write_shard(
    output: str, draws: int, shard_id: tuple[str, int, int], members: Iterable[EncodedPair]
) -> WrittenShard:
    """Writes one shard and its index; `shard_id` is its split, its number and how many shards the split has.
    Raises RuntimeError for a repeated key, whose samples would be lost."""
    (split, number, total), records = shard_id, sorted(members, key=lambda record: record.key)
    for one, other in itertools.pairwise(records):
        if one.key == other.key:
            raise RuntimeError(f"key {one.key} comes twice ({one.source} {one.row} and {other.source} {other.row})")
    name = f"{number:05d}-of-{total:05d}"
    path = f"{split}/{name}.tar"
    data = format.tar_bytes((record.key, packed(record, draws), record.source) for record in records)
    shard = write_file(output, path, data)
    rows = [index_row(record, draws, path, position) for position, record in enumerate(records)]
    index = write_file(output, index_path(path), table_bytes(rows, INDEX))
    return WrittenShard(
        path=path,
        split=split,
        pairs=len(records),
        bytes=shard.bytes,
        sha256=shard.sha256,
        sources=dict(Counter(record.source for record in records)),
        licences=dict(Counter(record.licence for record in records)),
        index_file=index,
    )


def index_row(record: EncodedPair, draws: int, shard: str, position: int) -> dict:
    """A row of index/*.parquet: the record without codes and tokens, with its shard and its position there."""
    row = {name: value for name, value in record._asdict().items() if name in INDEX.names}
    boxes = np.asarray(record.boxes).reshape(draws, -1).tolist() if len(record.boxes) else []
    return row | {"shard": shard, "position": position, "crop_boxes": boxes}
