"""Records and rejects to the files of a dataset, all but the manifest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import apache_beam as beam

from pipeline.dataset.near_duplicates import DropNearDuplicates, NearDuplicateConfig
from pipeline.dataset.shard_boundaries import ShardSize
from pipeline.dataset.shards import WriteShards
from pipeline.output import parquet, schemas
from pipeline.output.ledger import KEPT, CountRows
from pipeline.output.names import REJECTS_FOLDER
from pipeline.records import REJECTED_TAG, EncodedPair, Reason, Stage, reject
from pipeline.sources.precedence import preferred_pair


class WrittenDataset(NamedTuple):
    """PCollections: the shards, the files of rejects, the ledger's counts of kept and rejected rows."""

    shards: beam.PCollection
    rejects: beam.PCollection
    counts: beam.PCollection


class WriteDataset(beam.PTransform):
    """(records, rejects) -> shards, index and reject files. Duplicate pairs become rejects."""

    def __init__(
        self,
        output: str,
        draws: int,
        size: ShardSize,
        rows_per_file: int,
        near: NearDuplicateConfig = NearDuplicateConfig(),  # noqa: B008 (immutable)
    ):
        self._output, self._draws, self._near = output, draws, near
        self._size, self._rows_per_file = size, rows_per_file

    def expand(self, inputs) -> WrittenDataset:
        records, rejected = inputs
        single = (
            records
            | "By image and caption" >> beam.Map(by_pair).with_output_types(tuple[str, EncodedPair])
            | "Same pair" >> beam.GroupByKey()
            | "Keep first" >> beam.ParDo(KeepFirstPair()).with_outputs(REJECTED_TAG, main="records")
        )
        all_rejected = [rejected, single[REJECTED_TAG]]
        kept = single.records
        if self._near.on:
            remaining = kept | "Near-duplicates" >> DropNearDuplicates(self._near)
            kept, all_rejected = remaining.records, [*all_rejected, remaining[REJECTED_TAG]]
        rejected = all_rejected | "All rejects" >> beam.Flatten()
        return WrittenDataset(
            shards=kept | "Shards" >> WriteShards(self._output, self._draws, self._size),
            rejects=rejected
            | "Write rejects"
            >> parquet.WriteParquet(self._output, REJECTS_FOLDER, schemas.REJECTS, self._rows_per_file),
            counts=(kept | "Count kept" >> CountRows(KEPT), rejected | "Count rejected" >> CountRows())
            | "Counts" >> beam.Flatten(),
        )


def by_pair(record: EncodedPair) -> tuple[str, EncodedPair]:
    return f"{record.sha256} {record.caption}", record


class KeepFirstPair(beam.DoFn):
    """Keeps, of records with the same image and caption (mirrors, re-uploads), the first by source, file and row."""

    def process(self, group: tuple[str, Iterable[EncodedPair]]):
        records = list(group[1])
        first = preferred_pair(records)
        yield first
        for record in records:
            if record is not first:
                yield beam.pvalue.TaggedOutput(
                    REJECTED_TAG, reject(record, Stage.ENCODE, Reason.DUPLICATE_PAIR, f"kept {first.key}")
                )
