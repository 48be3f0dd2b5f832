"""`pairmill build`: selects, fetches and encodes in one job. Images are not stored, only their codes."""

from __future__ import annotations

from functools import partial

import apache_beam as beam

from beam_jobs.flags.common import job_parser, parse
from beam_jobs.flags.encode import add_encode_options, encode_config, encode_settings, near_config
from beam_jobs.flags.engine import check_places, has_remote_workers
from beam_jobs.flags.fetch import add_fetch_options, fetch_config, fetch_settings
from beam_jobs.flags.files import add_part_option, add_size_options, check_part, shard_size, without_part
from beam_jobs.flags.images import add_image_options, image_config
from beam_jobs.flags.select import (
    add_select_options,
    input_files,
    select_config,
    select_settings,
    source_pieces,
    source_settings,
)
from beam_jobs.part import prepare, run_part
from beam_jobs.run import command, run
from pipeline import tokenize_stage
from pipeline.dataset import finish
from pipeline.dataset.finish import finish_dataset
from pipeline.dataset.stage import WriteDataset
from pipeline.fetch.units import GroupIntoUnits, GroupIntoUnitsOfPart
from pipeline.output.finish import Finish
from pipeline.output.names import MANIFEST_FILE
from pipeline.output.progress import Step
from pipeline.records import REJECTED_TAG
from pipeline.select.pair_count import CountPairs
from pipeline.select.stage import ReadAndFilter, SelectedRows, build_url_indexes, plan_reading, read_count
from pipeline.tokenize_stage import FetchAndEncode


def main(arguments: list[str] | None = None) -> int:
    parser = job_parser("build", __doc__.split("\n")[0])
    add_select_options(parser)
    add_fetch_options(parser)
    add_image_options(parser)
    add_encode_options(parser)
    add_size_options(parser)
    add_part_option(parser)
    args, beam_options = parse(parser, arguments)
    check_part(args)
    check_places(beam_options, args.output, [*input_files(args), *filter(None, [args.exclude])])
    pieces, select = source_pieces(args.source), select_config(args)
    sources = source_settings(args)
    fetch, image = fetch_config(args), image_config(args)
    encode = encode_config(args, beam_options)
    settings = {
        "select": select_settings(args, pieces),
        "fetch": fetch_settings(args),
        "encode": encode_settings(args),
    }
    parts = tokenize_stage.dataset_parts(encode, settings, {piece.source for piece in pieces})
    if not prepare(args, beam_options, "build", finish.identity(parts), MANIFEST_FILE):
        return 0
    encode = tokenize_stage.prepare_workers(encode, parts, args.output, has_remote_workers(beam_options))
    sources = build_url_indexes(sources, args.output)
    plan_reading(pieces, args.output)

    def build(pipeline: beam.Pipeline) -> None:
        range_results = pipeline | "Read" >> ReadAndFilter(pieces, select, sources, args.output)
        selected = range_results | "Select" >> SelectedRows(args.output, args.rows_per_file)
        if args.part:
            numbers = range_results | "Count pairs" >> CountPairs(args.output, args.rows_per_file)
            units = (selected.pairs, numbers) | "Units" >> GroupIntoUnitsOfPart(
                args.pairs_per_unit, args.output, args.part, Step.FETCH_AND_ENCODE
            )
        else:
            units = selected.pairs | "Units" >> GroupIntoUnits(args.pairs_per_unit, args.output, Step.FETCH_AND_ENCODE)
        encoded = units | "Fetch and encode" >> beam.ParDo(
            FetchAndEncode(args.output, fetch, image, encode)
        ).with_outputs(REJECTED_TAG, main="records")
        if args.part:
            return
        rejected = (selected[REJECTED_TAG], encoded[REJECTED_TAG])
        written = ((encoded.records,), rejected) | "Dataset" >> WriteDataset(
            args.output, args.draws, shard_size(args), args.rows_per_file, near_config(args)
        )
        counts = (range_results | "Count read" >> beam.Map(read_count), written.counts) | "Counts" >> beam.Flatten()
        _ = pipeline | "Finish" >> Finish(
            partial(finish_dataset, args.output, parts), written.shards, written.rejects, counts
        )

    if args.part:
        again = partial(main, without_part(arguments))
        return run_part(beam_options, args.output, "build", args.part, build, again)
    return run(beam_options, args.output, "build", build, wait=not args.no_wait)


if __name__ == "__main__":
    raise SystemExit(command(main))
