"""Records of a dataset by a condition on their columns and scores."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
import pyarrow as pa

from models.data.format import File, Shard, index_path
from pipeline.dataset.existing import ExistingDataset, file_of, read_records
from pipeline.output import schemas
from pipeline.output.counts import Step, counts_of
from pipeline.records import REJECTED_TAG, EncodedPair, Reason, Rejected, Stage, reject
from pipeline.scores.condition import Condition, holds
from pipeline.scores.score_files import Scores, join_scores

COLUMNS = pa.schema(
    [
        field
        for field in schemas.schema_of(EncodedPair, without=("codes", "tokens", "boxes", "signature"))
        if field.name in schemas.INDEX.names
    ]
)
"""The columns of a pair that a condition may name beside its scores."""


def condition_columns(scores: Scores | None) -> pa.Schema:
    """All columns that a condition may name. A score takes the place of a column of its name."""
    names = scores.names if scores else ()
    own = [field for field in COLUMNS if field.name not in names]
    return pa.schema([*own, *(field for field in (scores.schema if scores else ()) if field.name in names)])


class FilterRecords(beam.PTransform):
    """The records of a dataset for which a condition holds. The others are rejects, under their tag."""

    def __init__(self, dataset: ExistingDataset, condition: Condition, scores: Scores | None, output: str):
        self._dataset, self._condition, self._scores, self._output = dataset, condition, scores, output

    def expand(self, pipeline):
        shards = [(shard, file_of(self._dataset, index_path(shard.path))) for shard in self._dataset.manifest.shards]
        return (
            pipeline
            | "Shards" >> beam.Create(shards)
            | "Spread" >> beam.Reshuffle()
            | "Filter"
            >> beam.ParDo(
                _FilterShard(self._dataset.directory, self._condition, self._scores, self._output)
            ).with_outputs(REJECTED_TAG, main="records")
        )


class _FilterShard(beam.DoFn):
    def __init__(self, directory: str, condition: Condition, scores: Scores | None, output: str):
        self._directory, self._condition, self._scores, self._output = directory, condition, scores, output

    def process(self, shard_and_index: tuple[Shard, File]):
        shard, index = shard_and_index
        records = list(read_records(self._directory, shard, index))
        for row in filter_records(records, self._condition, self._scores):
            yield row if isinstance(row, EncodedPair) else beam.pvalue.TaggedOutput(REJECTED_TAG, row)
        counts_of(self._output).step(Step.READ, done=shard.pairs)


def filter_records(
    records: list[EncodedPair], condition: Condition, scores: Scores | None
) -> Iterator[EncodedPair | Rejected]:
    """The records for which the condition holds, and rejects of the others, with the values that it looked at."""
    if not records:
        return
    columns = {field.name: [getattr(record, field.name) for record in records] for field in COLUMNS}
    table = pa.table(columns, COLUMNS)
    if scores:
        table = join_scores(table.select(_not_in(scores)), _scores_of(records, scores))
    values = zip(*(table[name].to_pylist() for name in condition.columns), strict=True)
    for record, is_kept, row in zip(records, holds(condition, table), values, strict=True):
        yield record if is_kept else reject(record, Stage.ENCODE, Reason.FILTERED_OUT, _detail(condition, row))


def _not_in(scores: Scores) -> list[str]:
    return [name for name in COLUMNS.names if name not in scores.names]


def _scores_of(records: list[EncodedPair], scores: Scores) -> pa.Table:
    """Shards hold ranges of keys: these are few of all scores."""
    keys = [record.key for record in records]
    return scores.read(min(keys), max(keys))


def _detail(condition: Condition, values: tuple) -> str:
    """NAME VALUE of each column that the condition names, floats to seven digits: those of a float32."""
    texts = ["missing" if value is None else f"{value:.7g}" if isinstance(value, float) else value for value in values]
    return ", ".join(f"{name} {text}" for name, text in zip(condition.columns, texts, strict=True))
