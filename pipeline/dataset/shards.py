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
from pipeline.dataset.shard_boundaries import FindShardBoundaries, ShardBoundaries, ShardSize, shard_of
from pipeline.output.files import WrittenFile, write_file
from pipeline.output.parquet import table_bytes
from pipeline.output.progress import Step, counts_of
from pipeline.output.schemas import INDEX
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
        output, draws = self._output, self._draws
        boundaries = records | "Boundaries" >> FindShardBoundaries(self._size, draws)
        return (
            records
            | "Shard"
            >> beam.Map(_by_shard, beam.pvalue.AsSingleton(boundaries), output).with_output_types(
                tuple[tuple[str, int, int], EncodedPair]
            )
            | "Gather" >> beam.GroupByKey()
            | "Write"
            >> beam.MapTuple(
                lambda shard_id, members: _counted(output, write_shard(output, draws, shard_id, members))
            ).with_output_types(WrittenShard)
        )


def _by_shard(
    record: EncodedPair, boundaries: ShardBoundaries, output: str
) -> tuple[tuple[str, int, int], EncodedPair]:
    counts_of(output).step(Step.GROUP, done=1)
    return shard_of(record, boundaries), record


def _counted(output: str, shard: WrittenShard) -> WrittenShard:
    counts_of(output).step(Step.SHARDS, done=shard.pairs)
    return shard


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
    data = format.tar_bytes(
        (record.key, format.pack_sample(record.caption, record.tokens, record.codes, draws), record.source)
        for record in records
    )
    shard = write_file(output, path, data)
    rows = [index_row(record, draws, path, position) for position, record in enumerate(records)]
    index = write_file(output, index_path(path), table_bytes(rows, INDEX))
    return WrittenShard(
        path,
        split,
        len(records),
        shard.bytes,
        shard.sha256,
        dict(Counter(record.source for record in records)),
        dict(Counter(record.licence for record in records)),
        index,
    )


def index_row(record: EncodedPair, draws: int, shard: str, position: int) -> dict:
    """A row of index/*.parquet: the record without codes and tokens, with its shard and its position there."""
    row = {name: value for name, value in record._asdict().items() if name in INDEX.names}
    boxes = np.asarray(record.boxes).reshape(draws, -1).tolist()
    return row | {"shard": shard, "position": position, "crop_boxes": boxes}
