"""`pairmill select`: reads source files and writes pairs/*.parquet, rejects/*.parquet and ledger.json."""

from __future__ import annotations

import argparse
from functools import partial

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.estimate import EstimatedJob, estimate_lists
from beam_jobs.flags.common import job_parser, parse, workers_of
from beam_jobs.flags.engine import check_places
from beam_jobs.flags.estimate import add_estimate_options, check_estimate
from beam_jobs.flags.files import add_rows_per_file
from beam_jobs.flags.images import add_image_options
from beam_jobs.flags.select import (
    add_select_options,
    input_files,
    select_config,
    select_settings,
    source_ranges,
    source_settings,
)
from beam_jobs.run import command, prepare, run
from beam_jobs.run import prepare_process as prepare_process
from pipeline.output.finish import Finish
from pipeline.output.names import LEDGER_FILE
from pipeline.output.state import withdraws_on_error
from pipeline.select.stage import (
    ReadAndFilter,
    WriteSelected,
    build_url_indexes,
    finish_select,
    plan_reading,
    read_counts,
)
from pipeline.sources.file_ranges import FileRange


def main(arguments: list[str] | None = None) -> int:
    parser = job_parser("select", __doc__.split("\n")[0])
    add_select_options(parser)
    add_image_options(parser)
    add_rows_per_file(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="only count the rows: write ledger.json, but neither pairs nor rejects"
    )
    add_estimate_options(parser)
    args, beam_options = parse(parser, arguments)
    check_estimate(args)
    if args.estimate:
        job = EstimatedJob("select", __spec__.name, workers_of(beam_options))
        return estimate_lists(args, beam_options, job, partial(_run, beam_options))
    check_places(beam_options, args.output, input_files(args))
    return _run(beam_options, args, source_ranges(args.source, source_settings(args)))


def _run(beam_options: PipelineOptions, args: argparse.Namespace, ranges: list[FileRange]) -> int:
    """Selects the pairs of these parts of lists. Returns the exit status."""
    sources, config = source_settings(args), select_config(args)
    settings = {"select": select_settings(args, ranges)} | ({"dry_run": True} if args.dry_run else {})
    if not prepare(args, beam_options, "select", settings, LEDGER_FILE):
        return 0
    with withdraws_on_error(args.output):
        sources = build_url_indexes(sources, args.output)
    plan_reading(ranges, args.output)

    def build(pipeline: beam.Pipeline) -> None:
        range_results = pipeline | "Read" >> ReadAndFilter(ranges, config, sources, args.output)
        selected = range_results | "Write" >> WriteSelected(args.output, args.rows_per_file, args.dry_run)
        counts = (
            range_results | "Count read" >> beam.FlatMap(read_counts),
            selected[WriteSelected.COUNTS],
        ) | "Counts" >> beam.Flatten()
        names = sorted({file_range.source for file_range in ranges})
        _ = pipeline | "Finish" >> Finish(
            partial(finish_select, args.output, names, settings), counts, selected.written
        )

    return run(beam_options, args.output, "select", build, wait=not args.no_wait, is_sample=bool(args.estimate))


if __name__ == "__main__":
    command(main)
