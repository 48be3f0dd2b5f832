"""Sources to pairs: read, judge, and keep one row of each URL.

`spill.py` tells how the rows get from the one half to the other."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import apache_beam as beam
import msgpack
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.coders import RowCoder, registry

from pipeline.filters import SelectConfig, filter_candidate
from pipeline.output import files as output_files
from pipeline.output import ledger, parquet, schemas
from pipeline.output.files import WrittenFile
from pipeline.output.finish import remove_stale_files, write_settings
from pipeline.output.ledger import KEPT, READ, Count
from pipeline.output.work_folder import WORK_FOLDER
from pipeline.records import REJECTED_TAG, Pair, Rejected, Stage
from pipeline.select.spill import HASH_BINS, SpillFile, write_spills
from pipeline.select.url_duplicates import UrlGroups, group_by_url
from pipeline.sources.file_ranges import FileRange, LineCount, count_lines, first_line_number, read_range
from pipeline.sources.registry import SOURCES, SourceSettings


def finish_select(
    output: str, sources: list[str], settings: dict[str, Any], counts: list[Count], files: list[WrittenFile]
) -> None:
    """Writes settings.json, then ledger.json, by which a selection counts as finished."""
    account = ledger.build_ledger(counts, sources)
    remove_stale_files(output, ("pairs", "rejects"), {file.path for file in files})
    write_settings(output, settings)
    ledger.write_ledger(output, account)


FOLDER = f"{WORK_FOLDER}/rows"


class RangeResult(NamedTuple):
    """What became of one piece: where its rows are, and how many."""

    source: str
    rows: int
    spills: list[SpillFile]


class HashPartition(NamedTuple):
    """One of the files that the second half writes: a range of hashes."""

    number: int
    of: int


for _record in (RangeResult, HashPartition):
    registry.register_coder(_record, RowCoder)


def build_url_indexes(settings: SourceSettings, output: str) -> SourceSettings:
    """The settings of all sources as workers need them: side files that are too long for a worker's memory are indexed
    in the output's work folder. Raises UserError if one does not have the expected format."""
    folder = output_files.join(output, WORK_FOLDER)
    return {name: source.prepare(settings.get(name, source.settings), folder) for name, source in SOURCES.items()}


class ReadAndFilter(beam.PTransform):
    """Pieces of sources -> an Account of each. Every row read becomes a pair or a reject, on disk."""

    def __init__(self, pieces: list[FileRange], config: SelectConfig, settings: SourceSettings, output: str):
        self._pieces, self._config, self._settings, self._output = pieces, config, settings, output

    def expand(self, begin):
        ranges = [piece for piece in self._pieces if piece.kind == "lines"]
        counts = (
            begin
            | "Ranges" >> beam.Create(ranges).with_output_types(FileRange)
            | "Spread ranges" >> beam.Reshuffle()
            | "Count lines" >> beam.Map(count_lines).with_output_types(LineCount)
        )
        # A piece counts as often as the pattern names it, so that a file given twice is read twice.
        numbered = list(enumerate(self._pieces))
        return (
            begin
            | "Pieces" >> beam.Create(numbered).with_output_types(tuple[int, FileRange])
            | "Spread pieces" >> beam.Reshuffle()
            | "Read and judge"
            >> beam.Map(
                filter_range, beam.pvalue.AsList(counts), self._config, self._settings, self._output
            ).with_output_types(RangeResult)
        )


def filter_range(
    numbered: tuple[int, FileRange],
    counts: list[LineCount],
    config: SelectConfig,
    settings: SourceSettings,
    output: str,
) -> RangeResult:
    """Reads and judges a piece, or takes what an interrupted run left of it."""
    number, piece = numbered
    name = f"{number:06d}-{_identity(piece)}"
    marker = output_files.join(output, *FOLDER.split("/"), f"{name}.msgpack")
    if output_files.exists(marker):
        rows, spills = msgpack.unpackb(output_files.read(marker))
        return RangeResult(piece.source, rows, [SpillFile(*spill) for spill in spills])
    source = SOURCES[piece.source]
    tidy = functools.partial(source.tidy_caption, settings=settings.get(source.name, source.settings))
    read = read_range(piece, settings, first_line_number(piece, counts))
    outcomes = (row if isinstance(row, Rejected) else filter_candidate(row, config, tidy) for row in read)
    spills = list(write_spills(output, name, outcomes))
    rows = sum(spill.rows for spill in spills)
    output_files.write_atomically(marker, msgpack.packb([rows, spills]))
    return RangeResult(piece.source, rows, spills)


def _identity(piece: FileRange) -> str:
    """Of a piece as it is now: a file that was changed since an interrupted run is another one."""
    state = os.stat(piece.path) if os.path.exists(piece.path) else None
    facts = (*piece, state and state.st_size, state and state.st_mtime_ns)
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class _Parts(beam.PTransform):
    """Accounts -> the Parts that hold all rows, about `rows_per_file` in each."""

    def __init__(self, rows_per_file: int):
        self._rows_per_file = rows_per_file

    def expand(self, accounts):
        return (
            accounts
            | "Rows" >> beam.Map(lambda account: account.rows).with_output_types(int)
            | "All rows" >> beam.CombineGlobally(sum)
            | "Parts" >> beam.FlatMap(plan_parts, self._rows_per_file).with_output_types(HashPartition)
            | "Spread parts" >> beam.Reshuffle()
        )


def plan_parts(rows: int, rows_per_file: int) -> list[HashPartition]:
    of = min(HASH_BINS, max(1, -(-rows // rows_per_file)))
    return [HashPartition(number, of) for number in range(of)]


def outcomes_of_part(part: HashPartition, accounts: Iterable[RangeResult], output: str) -> UrlGroups:
    """What becomes of the rows of a part."""
    bins = [HASH_BINS * number // part.of for number in (part.number, part.number + 1)]
    return group_by_url(output, [spill for account in accounts for spill in account.spills], *bins)


class WriteSelected(beam.PTransform):
    """Accounts -> pairs/ and rejects/ (unless `dry_run`), a WrittenFile for each, and the ledger's counts."""

    COUNTS = "counts"

    def __init__(self, output: str, rows_per_file: int, dry_run: bool):
        self._output, self._rows_per_file, self._dry_run = output, rows_per_file, dry_run

    def expand(self, accounts):
        return (
            accounts
            | "Plan" >> _Parts(self._rows_per_file)
            | "Write"
            >> beam.ParDo(_WritePart(self._output, self._dry_run), beam.pvalue.AsList(accounts)).with_outputs(
                self.COUNTS, main="written"
            )
        )


class _WritePart(beam.DoFn):
    def __init__(self, output: str, dry_run: bool):
        self._output, self._dry_run = output, dry_run

    def process(self, part: HashPartition, accounts: list[RangeResult]):
        outcomes = outcomes_of_part(part, accounts, self._output)
        for count in counts_of(outcomes):
            yield beam.pvalue.TaggedOutput(WriteSelected.COUNTS, count)
        if not self._dry_run:
            yield from write_part(part, outcomes, self._output)


def write_part(part: HashPartition, outcomes: UrlGroups, output: str) -> list[WrittenFile]:
    names = [f"{folder}/{part.number:05d}-of-{part.of:05d}.parquet" for folder in ("pairs", "rejects")]
    with contextlib.ExitStack() as stack:
        pairs, rejects = (
            parquet.FileWriter(
                stack.enter_context(output_files.atomic_writer(output_files.join(output, *name.split("/")))), schema
            )
            for name, schema in zip(names, (schemas.PAIRS, schemas.REJECTS), strict=True)
        )
        for table in outcomes.tables(output):
            is_pair = pc.equal(table["reason"], "")
            pairs.write(table.filter(is_pair).select(schemas.PAIRS.names))
            gone = table.filter(pc.invert(is_pair))
            stage = pa.array([Stage.SELECT.value] * len(gone), pa.string())
            rejects.write(gone.append_column("stage", stage).select(schemas.REJECTS.names))
        return [writer.close(name) for writer, name in zip((pairs, rejects), names, strict=True)]


def counts_of(outcomes: UrlGroups) -> list[Count]:
    """The ledger's counts of kept and rejected rows."""
    return [
        ((source, Stage.SELECT.value, reason) if reason else (source, KEPT, ""), number)
        for (source, reason), number in sorted(outcomes.counts.items())
    ]


def read_count(account: RangeResult) -> Count:
    return (account.source, READ, ""), account.rows


class SelectedRows(beam.PTransform):
    """Accounts -> the pairs, and the rejects under their tag, as elements for the next stage of the same job."""

    def __init__(self, output: str, rows_per_file: int):
        self._output, self._rows_per_file = output, rows_per_file

    def expand(self, accounts):
        return (
            accounts
            | "Plan" >> _Parts(self._rows_per_file)
            | "Rows of parts"
            >> beam.ParDo(_RowsOfPart(self._output), beam.pvalue.AsList(accounts)).with_outputs(
                REJECTED_TAG, main="pairs"
            )
        )


class _RowsOfPart(beam.DoFn):
    def __init__(self, output: str):
        self._output = output

    def process(self, part: HashPartition, accounts: list[RangeResult]):
        tables = outcomes_of_part(part, accounts, self._output).tables(self._output)
        for row in (row for table in tables for batch in table.to_batches(10_000) for row in batch.to_pylist()):
            if row["reason"]:
                yield beam.pvalue.TaggedOutput(
                    REJECTED_TAG,
                    Rejected(stage=Stage.SELECT.value, **{name: row[name] for name in _REJECT_FIELDS}),
                )
            else:
                yield Pair(**{name: row[name] for name in Pair._fields})


_REJECT_FIELDS = [name for name in Rejected._fields if name != "stage"]
