"""`pairmill build`: selects, fetches and encodes in one job. Images are not stored, only their codes."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.dataset_output import write_dataset
from beam_jobs.estimate import EstimatedJob, estimate_lists
from beam_jobs.flags.common import job_parser, parse, workers_of
from beam_jobs.flags.encode import (
    add_encode_options,
    encode_config,
    encode_hints,
    encode_settings,
    gpus_of,
    near_config,
)
from beam_jobs.flags.engine import check_places, has_remote_workers
from beam_jobs.flags.estimate import add_estimate_options, check_estimate
from beam_jobs.flags.fetch import add_fetch_options, fetch_config, fetch_settings, fetching_machines, host_limits
from beam_jobs.flags.files import add_part_option, add_size_options, check_part
from beam_jobs.flags.images import add_image_options, image_config
from beam_jobs.flags.score import add_bound_options, add_face_options, image_filter_of
from beam_jobs.flags.select import (
    add_select_options,
    input_files,
    select_config,
    select_settings,
    source_ranges,
    source_settings,
)
from beam_jobs.part import prepare, run_whole_or_part
from beam_jobs.run import command
from beam_jobs.run import prepare_process as prepare_process
from pipeline import tokenize_stage
from pipeline.dataset import finish
from pipeline.encode_units import EncodeUnits, UnitJob
from pipeline.fetch.units import GroupIntoUnits, GroupIntoUnitsOfPart
from pipeline.output.counts import Step
from pipeline.output.names import MANIFEST_FILE
from pipeline.output.state import withdraws_on_error
from pipeline.records import REJECTED_TAG
from pipeline.select.pair_count import CountPairs
from pipeline.select.stage import ReadAndFilter, SelectedRows, build_url_indexes, plan_reading, read_counts
from pipeline.sources.file_ranges import FileRange


def main(arguments: list[str] | None = None) -> int:
    parser = job_parser("build", __doc__.split("\n")[0])
    add_select_options(parser)
    add_fetch_options(parser)
    add_image_options(parser)
    add_encode_options(parser)
    add_bound_options(parser, with_folder=False)
    add_face_options(parser)
    add_size_options(parser)
    add_part_option(parser)
    add_estimate_options(parser)
    args, beam_options = parse(parser, arguments)
    check_part(args)
    check_estimate(args)
    run_job = partial(_run, beam_options, arguments)
    if args.estimate:
        job = EstimatedJob(
            name="build",
            module=__spec__.name,
            workers=workers_of(beam_options),
            gpus=gpus_of(args, workers_of(beam_options)),
            limits=host_limits(args),
            pairs_per_unit=args.pairs_per_unit,
            waits=True,
        )
        return estimate_lists(args, beam_options, job, run_job)
    check_places(beam_options, args.output, [*input_files(args), *filter(None, [args.exclude])])
    return run_job(args, source_ranges(args.source, source_settings(args)))


def _run(
    beam_options: PipelineOptions, arguments: list[str] | None, args: argparse.Namespace, ranges: list[FileRange]
) -> int:
    """Builds the dataset of these parts of lists. Returns the exit status."""
    sources, select = source_settings(args), select_config(args)
    fetch = dataclasses.replace(fetch_config(args), machines=fetching_machines(args, beam_options))
    image, encode = image_config(args), encode_config(args, beam_options)
    hints = encode_hints(args, beam_options)
    image_filter = image_filter_of(args, beam_options)
    settings = {
        "select": select_settings(args, ranges),
        "fetch": fetch_settings(args),
        "encode": encode_settings(args),
    } | (image_filter.settings if image_filter else {})
    parts = tokenize_stage.dataset_parts(encode, settings, {file_range.source for file_range in ranges})
    if not prepare(args, beam_options, "build", finish.identity(parts), MANIFEST_FILE):
        return 0
    encode = tokenize_stage.prepare_workers(encode, parts, args.output, has_remote_workers(beam_options))
    if image_filter and has_remote_workers(beam_options):
        image_filter = image_filter.for_other_machines(args.output)
    with withdraws_on_error(args.output):
        sources = build_url_indexes(sources, args.output)
    plan_reading(ranges, args.output)
    unit_job = UnitJob(
        output=args.output,
        fetch=fetch,
        image=image,
        encode=encode,
        image_size=parts.image_tokenizer.image_size,
        image_filter=image_filter,
    )

    def build(pipeline: beam.Pipeline) -> None:
        range_results = pipeline | "Read" >> ReadAndFilter(ranges, select, sources, args.output)
        selected = range_results | "Select" >> SelectedRows(args.output, args.rows_per_file)
        encode_units = EncodeUnits(unit_job, hints)
        units = _group_into_units(args, range_results, selected.pairs, encode_units.fetching_step)
        encoded = units | "Fetch and encode" >> encode_units
        if not args.part:
            rejected = (selected[REJECTED_TAG], encoded[REJECTED_TAG])
            counts = range_results | "Count read" >> beam.FlatMap(read_counts)
            write_dataset(args, parts, (encoded.records,), rejected, counts, near_config(args))

    return run_whole_or_part(args, beam_options, "build", build, main, arguments)


def _group_into_units(
    args: argparse.Namespace, range_results: beam.PCollection, pairs: beam.PCollection, step: Step
) -> beam.PCollection:
    """The selected pairs in units of work, or with --part its share of them."""
    if not args.part:
        return pairs | "Units" >> GroupIntoUnits(args.pairs_per_unit, args.output, step)
    numbers = range_results | "Count pairs" >> CountPairs(args.output, args.rows_per_file)
    return (pairs, numbers) | "Units" >> GroupIntoUnitsOfPart(args.pairs_per_unit, args.output, args.part, step)


if __name__ == "__main__":
    command(main)
