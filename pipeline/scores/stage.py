"""Image shards to files of scores."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.utils.shared import Shared

from pipeline.fetch import stored_shards
from pipeline.images.validate import ImageConfig
from pipeline.output import ledger, schemas
from pipeline.output.counts import Step, counts_of
from pipeline.output.files import WrittenFile, write_file
from pipeline.output.finish import remove_stale_files, write_settings
from pipeline.output.grouping import key_hash
from pipeline.output.ledger import KEPT, Count
from pipeline.output.names import EMBEDDINGS_FOLDER, REJECTS_FOLDER, SCORES_FOLDER
from pipeline.output.parquet import file_bytes
from pipeline.output.spill import HashRange, HashRanges, Spill, SpillFile, read_spilled, rows_as
from pipeline.output.work_folder import CompletedUnits, resume_unit, unit_name
from pipeline.records import REJECTED_TAG, Pair, Reason, Rejected, Stage, kept_instead, reject
from pipeline.scores.score_files import schema_of, score_path, write_score_list
from pipeline.scores.scorer import PairScorer, ScoreConfig, ScoredPair

ROWS_PER_FILE = 50_000
"""Pairs of a file: with embeddings of 512 numbers about 100 MB, which its writer holds in memory."""


class ScoreImageShard(beam.DoFn):
    """Shard of images -> its ScoredPairs, and rejects under their tag. The output records which shards are finished."""

    def __init__(self, output: str, image_config: ImageConfig, config: ScoreConfig):
        self._output, self._image_config, self._config = output, image_config, config
        self._store = CompletedUnits(output, ScoredPair)
        self._shared = Shared()  # one model a process, however many threads Beam gives it

    def setup(self) -> None:
        self._scorer = self._shared.acquire(partial(PairScorer, self._config))

    def process(self, path: str):
        rows = list(stored_shards.list_rows(path))
        for row in rows:
            if isinstance(row, Rejected):
                yield beam.pvalue.TaggedOutput(REJECTED_TAG, row)
        pairs = [row for row in rows if isinstance(row, Pair)]
        name = unit_name(path)
        scored, rejects = resume_unit(name, pairs, self._store, partial(self._score, path))
        counts_of(self._output).step(Step.SCORE, done=len(pairs), work=1)
        yield from scored
        for row in rejects:
            yield beam.pvalue.TaggedOutput(REJECTED_TAG, row)

    def _score(self, path: str, pairs: list[Pair]) -> Iterator[ScoredPair | Rejected]:
        return self._scorer.score(stored_shards.read_images(path, pairs, self._image_config))


SCORED = schemas.schema_of(ScoredPair)


class WriteScores(beam.PTransform):
    """ScoredPairs -> files of scores and embeddings, as WrittenFiles. Of pairs with one key the first stays; the others
    are rejects, under their tag, and the ledger's counts of pairs that are kept are under KEPT."""

    def __init__(self, output: str, config: ScoreConfig, rows_per_file: int):
        self._output, self._config, self._rows_per_file = output, config, rows_per_file

    def expand(self, scored):
        spills = scored | "Spill" >> Spill(self._output, SCORED, key_hash)
        return (
            spills
            | "Files" >> HashRanges(self._rows_per_file)
            | "Write"
            >> beam.ParDo(_WriteGroup(self._output, self._config), beam.pvalue.AsList(spills)).with_outputs(
                REJECTED_TAG, KEPT, main="files"
            )
        )


class _WriteGroup(beam.DoFn):
    def __init__(self, output: str, config: ScoreConfig):
        self._output, self._config = output, config

    def process(self, group: HashRange, spills: list[SpillFile]):
        table = read_spilled(self._output, spills, SCORED, *group.bounds)
        table = table.sort_by([(name, "ascending") for name in ("key", "source", "file", "row", "caption")])
        keys = np.array(table["key"].to_pylist(), object)
        is_first = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
        for row in rows_as(ScoredPair, table.filter(pa.array(~is_first))):
            rejected = reject(row, Stage.SELECT, Reason.DUPLICATE_URL, kept_instead(row.key))
            yield beam.pvalue.TaggedOutput(REJECTED_TAG, rejected)
        table = table.filter(pa.array(is_first))
        for counted in table["source"].combine_chunks().value_counts().to_pylist():
            yield beam.pvalue.TaggedOutput(KEPT, ((counted["values"], KEPT, ""), counted["counts"]))
        yield self._write(SCORES_FOLDER, group, score_table(table, self._config.names))
        if self._config.model:
            yield self._write(EMBEDDINGS_FOLDER, group, embedding_table(table))

    def _write(self, folder: str, group: HashRange, table: pa.Table) -> WrittenFile:
        return write_file(self._output, score_path(group.first, group.total, folder), file_bytes(table))


def score_table(scored: pa.Table, names: tuple[str, ...]) -> pa.Table:
    """Rows of ScoredPair as rows of a file of scores."""
    values_BN = _matrix(scored["values"], "<f4", len(names))
    columns = [pa.array(column, pa.float32(), from_pandas=True) for column in values_BN.T]  # NaN is null
    return pa.Table.from_arrays([scored["key"].combine_chunks(), *columns], schema=schema_of(names))


def embedding_table(scored: pa.Table) -> pa.Table:
    """Rows of ScoredPair as rows of a file of embeddings: key, image and text, float16 [E] each."""
    columns = {"key": scored["key"]}
    for name in ("image", "text"):
        width = len(scored[name][0].as_py()) // 2 if len(scored) else 1
        values_BE = _matrix(scored[name], "<f2", width)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values_BE.ravel(), pa.float16()), width)
    return pa.table(columns)


def _matrix(column: pa.ChunkedArray, kind: str, width: int) -> np.ndarray:
    """Rows of bytes as numbers, [B, width]."""
    return np.frombuffer(b"".join(column.to_pylist()), kind).reshape(len(column), width)


def finish_scores(
    output: str,
    settings: dict[str, Any],
    names: tuple[str, ...],
    written: list[WrittenFile],
    rejects: list[WrittenFile],
    counts: list[Count],
) -> None:
    """Writes settings, the list of files and, last, the ledger. Removes stale files of an interrupted run."""
    totals = ledger.build_ledger(counts, [])
    files = {file.path for file in (*written, *rejects)}
    remove_stale_files(output, (SCORES_FOLDER, EMBEDDINGS_FOLDER, REJECTS_FOLDER), files)
    write_settings(output, settings)
    write_score_list(output, names, written)
    ledger.write_ledger(output, totals)
