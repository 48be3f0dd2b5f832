"""Sources to pairs: read, judge, and keep one row of each URL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import apache_beam as beam

from pipeline.dedup import first_of, normalised_url
from pipeline.filters import SelectConfig, judge
from pipeline.ledger import READ, CountRows
from pipeline.records import Candidate, Pair, Reason, Rejected, Stage, reject
from pipeline.sources import Piece, rows_of

REJECTED = "rejected"


class Selected(NamedTuple):
    """What comes out: PCollections of Pair, Rejected and ledger counts."""

    pairs: beam.PCollection
    rejected: beam.PCollection
    read_counts: beam.PCollection


class Select(beam.PTransform):
    """Source files, in pieces -> pairs. Every row read is either a pair or a reject."""

    def __init__(self, pieces: list[Piece], config: SelectConfig):
        self._pieces, self._config = pieces, config

    def expand(self, begin) -> Selected:
        rows = (begin
                | "Pieces" >> beam.Create(self._pieces)
                | "Spread" >> beam.Reshuffle()
                | "Read" >> beam.FlatMap(rows_of, {}))
        judged = rows | "Judge" >> beam.ParDo(Judge(self._config)).with_outputs(REJECTED, main="pairs")
        first = (judged.pairs
                 | "By URL" >> beam.Map(by_url).with_output_types(tuple[str, Pair])
                 | "Same URL" >> beam.GroupByKey()
                 | "Keep first" >> beam.ParDo(KeepFirst()).with_outputs(REJECTED, main="pairs"))
        return Selected(
            pairs=first.pairs,
            rejected=(judged[REJECTED], first[REJECTED]) | "Rejected" >> beam.Flatten(),
            read_counts=rows | "Count read" >> CountRows(READ),
        )


def by_url(pair: Pair) -> tuple[str, Pair]:
    return normalised_url(pair.url), pair


class Judge(beam.DoFn):
    """Row -> Pair, or Rejected under its tag."""

    def __init__(self, config: SelectConfig):
        self._config = config

    def process(self, row: Candidate | Rejected):
        outcome = row if isinstance(row, Rejected) else judge(row, self._config)
        yield beam.pvalue.TaggedOutput(REJECTED, outcome) if isinstance(outcome, Rejected) else outcome


class KeepFirst(beam.DoFn):
    """Of the pairs with one URL, the first by source, file and row stays, in whatever order they arrive."""

    def process(self, group: tuple[str, Iterable[Pair]]):
        pairs = list(group[1])
        first = first_of(pairs)
        yield first
        for pair in pairs:
            if pair is not first:
                yield beam.pvalue.TaggedOutput(
                    REJECTED, reject(pair, Stage.SELECT, Reason.DUPLICATE_URL, f"kept {first.key}"))
