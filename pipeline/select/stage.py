"""Sources to pairs: read, filter, and keep one row of each URL.

`spill.py` describes how rows get from the first half to the second."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import msgpack
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.coders import RowCoder, registry

from pipeline.filters import SelectConfig, filter_candidate, hide_personal_data
from pipeline.output import files as output_files
from pipeline.output import ledger, parquet, progress, schemas
from pipeline.output.counts import PLACE, Step, counts_of
from pipeline.output.files import WrittenFile
from pipeline.output.finish import remove_stale_files, write_settings
from pipeline.output.ledger import DAMAGED, KEPT, READ, Count
from pipeline.output.names import PAIRS_FOLDER, REJECTS_FOLDER, ROWS_FOLDER, WORK_FOLDER
from pipeline.output.spill import BINS, SpillFile
from pipeline.records import REJECTED_TAG, Pair, Reason, Rejected, Stage
from pipeline.select.spill import write_spills
from pipeline.select.url_duplicates import UrlGroups, group_by_url
from pipeline.sources.file_ranges import (
    FileRange,
    LineCount,
    count_lines,
    first_line_number,
    range_bytes,
    read_range,
)
from pipeline.sources.paths import METER
from pipeline.sources.readers import Row
from pipeline.sources.registry import SOURCES, SourceSettings


def finish_select(
    output: str, sources: list[str], settings: dict[str, Any], counts: list[Count], files: list[WrittenFile]
) -> None:
    """Writes settings.json, then ledger.json, whose presence marks a selection as finished."""
    result = ledger.build_ledger(counts, sources)
    remove_stale_files(output, (PAIRS_FOLDER, REJECTS_FOLDER), {file.path for file in files})
    write_settings(output, settings)
    ledger.write_ledger(output, result)


FOLDER = f"{WORK_FOLDER}/{ROWS_FOLDER}"
ROWS_PER_COUNT = 100  # rows are quick
SPILL_FORMAT = 3


class RangeResult(NamedTuple):
    """Result of filtering one file range: row count, spill files, the file's name if it can't be read to its end."""

    source: str
    rows: int
    spills: list[SpillFile]
    damaged: str = ""


class HashPartition(NamedTuple):
    """One of the files that the second half writes: a range of hashes."""

    number: int
    total: int


for _record in (RangeResult, HashPartition):
    registry.register_coder(_record, RowCoder)


def build_url_indexes(settings: SourceSettings, output: str) -> SourceSettings:
    """The settings of all sources as workers need them: side files that are too long for a worker's memory are indexed
    in the output's work folder. Raises UserError if one does not have the expected format."""
    folder = output_files.join(output, WORK_FOLDER)
    return {name: source.prepare(settings.get(name, source.settings), folder) for name, source in SOURCES.items()}


def plan_reading(file_ranges: list[FileRange], output: str) -> None:
    """Records what is to be read, for the progress line."""
    progress.write_plan(output, Step.COUNT_LINES, sum(file_range.kind == "lines" for file_range in file_ranges))
    progress.write_plan(output, Step.SELECT, sum(map(range_bytes, file_ranges)))


class ReadAndFilter(beam.PTransform):
    """File ranges -> a RangeResult of each. Every row read becomes a pair or a reject, on disk."""

    def __init__(self, file_ranges: list[FileRange], config: SelectConfig, settings: SourceSettings, output: str):
        self._file_ranges, self._config, self._settings, self._output = file_ranges, config, settings, output

    def expand(self, start):
        ranges = [file_range for file_range in self._file_ranges if file_range.kind == "lines"]
        counts = (
            start
            | "Ranges" >> beam.Create(ranges).with_output_types(FileRange)
            | "Spread ranges" >> beam.Reshuffle()
            | "Count lines" >> beam.Map(_count_lines, self._output).with_output_types(LineCount)
        )
        # Numbered, so that a file that two patterns match is read twice.
        numbered = list(enumerate(self._file_ranges))
        return (
            start
            | "File ranges" >> beam.Create(numbered).with_output_types(tuple[int, FileRange])
            | "Spread file ranges" >> beam.Reshuffle()
            | "Read and filter"
            >> beam.Map(
                filter_range, beam.pvalue.AsList(counts), self._config, self._settings, self._output
            ).with_output_types(RangeResult)
        )


def _count_lines(file_range: FileRange, output: str) -> LineCount:
    counted = count_lines(file_range)
    counts_of(output).step(Step.COUNT_LINES, done=1)
    return counted


def filter_range(
    numbered: tuple[int, FileRange],
    counts: list[LineCount],
    config: SelectConfig,
    settings: SourceSettings,
    output: str,
) -> RangeResult:
    """Reads and filters a file range, or returns the result that an interrupted run saved."""
    number, file_range = numbered
    name = f"{number:06d}-{_fingerprint(file_range)}"
    marker = output_files.join(output, *FOLDER.split("/"), f"{name}.msgpack")
    if output_files.exists(marker):
        rows, spills, damaged = msgpack.unpackb(output_files.read(marker))
        counts_of(output).step(Step.SELECT, before=rows, work_before=range_bytes(file_range))
        return RangeResult(file_range.source, rows, [*map(SpillFile._make, spills)], damaged)
    source = SOURCES[file_range.source]
    tidy = functools.partial(source.tidy_caption, settings=settings.get(source.name, source.settings))
    read = read_range(file_range, settings, first_line_number(file_range, counts))
    broken: list[str] = []
    outcomes = (
        hide_personal_data(row if isinstance(row, Rejected) else filter_candidate(row, config, tidy), config)
        for row in _noting(read, broken)
    )
    spills = list(write_spills(output, name, _counted(outcomes, range_bytes(file_range), output)))
    rows = sum(spill.rows for spill in spills)
    output_files.write_atomically(marker, msgpack.packb([rows, spills, "".join(broken)]))
    return RangeResult(file_range.source, rows, spills, "".join(broken))


def _noting(rows: Iterable[Row], broken: list[str]) -> Iterator[Row]:
    """The rows; of a file that can't be read to its end, its name goes into the list."""
    for row in rows:
        if isinstance(row, Rejected) and row.reason == Reason.DAMAGED_FILE.value:
            broken[:] = [row.file]
        yield row


def _counted(rows: Iterable[Pair | Rejected], size: int, output: str) -> Iterator[Pair | Rejected]:
    """The rows of a range. Counts them, rejects by reason, and the bytes that were read for them, up to the `size` of
    the range."""
    counts, first, work, number, rejected = counts_of(output), METER.bytes, 0, 0, Counter[str]()
    for row in rows:
        yield row
        number += 1
        if isinstance(row, Rejected) and (name := f"select {row.reason}") in PLACE:  # not of a check from elsewhere
            rejected[name] += 1
        if number % ROWS_PER_COUNT == 0:
            read = min(size, METER.bytes - first)
            counts.step(Step.SELECT, done=ROWS_PER_COUNT, work=read - work)
            counts.add(rejected)
            rejected.clear()
            work = read
    counts.step(Step.SELECT, done=number % ROWS_PER_COUNT, work=size - work)
    counts.add(rejected)


def _fingerprint(file_range: FileRange) -> str:
    """Identifies a file range by path, size and modification time, so that a changed file is read again; and so are all
    files of a job that a version with other spill files began."""
    state = os.stat(file_range.path) if os.path.exists(file_range.path) else None
    facts = (SPILL_FORMAT, *file_range, state and state.st_size, state and state.st_mtime_ns)
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class PlanPartitions(beam.PTransform):
    """RangeResults -> HashPartitions that cover all rows, about `rows_per_file` in each."""

    def __init__(self, rows_per_file: int):
        self._rows_per_file = rows_per_file

    def expand(self, results):
        return (
            results
            | "Rows" >> beam.Map(lambda result: result.rows).with_output_types(int)
            | "All rows" >> beam.CombineGlobally(sum)
            | "Parts" >> beam.FlatMap(plan_partitions, self._rows_per_file).with_output_types(HashPartition)
            | "Spread parts" >> beam.Reshuffle()
        )


def plan_partitions(rows: int, rows_per_file: int) -> list[HashPartition]:
    total = min(BINS, max(1, -(-rows // rows_per_file)))
    return [HashPartition(number, total) for number in range(total)]


def groups_of_partition(partition: HashPartition, results: Iterable[RangeResult], output: str) -> UrlGroups:
    """The rows of a partition, grouped by URL."""
    bins = [BINS * number // partition.total for number in (partition.number, partition.number + 1)]
    return group_by_url(output, [spill for result in results for spill in result.spills], *bins)


class WriteSelected(beam.PTransform):
    """RangeResults -> pairs/ and rejects/ (unless `dry_run`), a WrittenFile for each, and the ledger's counts."""

    COUNTS = "counts"

    def __init__(self, output: str, rows_per_file: int, dry_run: bool):
        self._output, self._rows_per_file, self._dry_run = output, rows_per_file, dry_run

    def expand(self, results):
        return (
            results
            | "Plan" >> PlanPartitions(self._rows_per_file)
            | "Write"
            >> beam.ParDo(_WritePartition(self._output, self._dry_run), beam.pvalue.AsList(results)).with_outputs(
                self.COUNTS, main="written"
            )
        )


class _WritePartition(beam.DoFn):
    def __init__(self, output: str, dry_run: bool):
        self._output, self._dry_run = output, dry_run

    def process(self, partition: HashPartition, results: list[RangeResult]):
        outcomes = groups_of_partition(partition, results, self._output)
        for count in ledger_counts(outcomes):
            yield beam.pvalue.TaggedOutput(WriteSelected.COUNTS, count)
        if self._dry_run:
            counts_of(self._output).step(Step.FILES, done=sum(outcomes.counts.values()))
        else:
            yield from write_partition(partition, outcomes, self._output)


def write_partition(partition: HashPartition, outcomes: UrlGroups, output: str) -> list[WrittenFile]:
    names = [
        f"{folder}/{partition.number:05d}-of-{partition.total:05d}.parquet" for folder in (PAIRS_FOLDER, REJECTS_FOLDER)
    ]
    with contextlib.ExitStack() as stack:
        pairs, rejects = (
            parquet.FileWriter(
                stack.enter_context(output_files.atomic_writer(output_files.join(output, *name.split("/")))), schema
            )
            for name, schema in zip(names, (schemas.PAIRS, schemas.REJECTS), strict=True)
        )
        for table in _counted_tables(outcomes, output):
            is_pair = pc.equal(table["reason"], "")
            pairs.write(table.filter(is_pair).select(schemas.PAIRS.names))
            rejected = table.filter(pc.invert(is_pair))
            stage = pa.array([Stage.SELECT.value] * len(rejected), pa.string())
            rejects.write(rejected.append_column("stage", stage).select(schemas.REJECTS.names))
        return [writer.close(name) for writer, name in zip((pairs, rejects), names, strict=True)]


def _counted_tables(outcomes: UrlGroups, output: str) -> Iterator[pa.Table]:
    """The rows as tables; counts those that the caller is done with."""
    for table in outcomes.tables():
        yield table
        counts_of(output).step(Step.FILES, done=len(table))


def ledger_counts(outcomes: UrlGroups) -> list[Count]:
    """The ledger's counts of kept and rejected rows."""
    return [
        ((source, Stage.SELECT.value, reason) if reason else (source, KEPT, ""), number)
        for (source, reason), number in sorted(outcomes.counts.items())
    ]


def read_counts(result: RangeResult) -> list[Count]:
    """The ledger's counts of rows read, and of files that can't be read to their end."""
    damaged: list[Count] = [((result.source, DAMAGED, result.damaged), 1)] if result.damaged else []
    return [((result.source, READ, ""), result.rows), *damaged]


class SelectedRows(beam.PTransform):
    """RangeResults -> the pairs, and the rejects under their tag, as elements for the next stage of the same job."""

    def __init__(self, output: str, rows_per_file: int):
        self._output, self._rows_per_file = output, rows_per_file

    def expand(self, results):
        return (
            results
            | "Plan" >> PlanPartitions(self._rows_per_file)
            | "Rows of parts"
            >> beam.ParDo(_RowsOfPartition(self._output), beam.pvalue.AsList(results)).with_outputs(
                REJECTED_TAG, main="pairs"
            )
        )


class _RowsOfPartition(beam.DoFn):
    def __init__(self, output: str):
        self._output = output

    def process(self, partition: HashPartition, results: list[RangeResult]):
        tables = _counted_tables(groups_of_partition(partition, results, self._output), self._output)
        for row in (row for table in tables for batch in table.to_batches(10_000) for row in batch.to_pylist()):
            if row["reason"]:
                yield beam.pvalue.TaggedOutput(
                    REJECTED_TAG,
                    Rejected(stage=Stage.SELECT.value, **{name: row[name] for name in _REJECT_FIELDS}),
                )
            else:
                yield Pair(**{name: row[name] for name in Pair._fields})


_REJECT_FIELDS = [name for name in Rejected._fields if name != "stage"]
