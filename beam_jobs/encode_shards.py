"""`pairmill encode`: turns images in img2dataset's layout, or their codes, into a dataset of codes and BPE tokens."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import DoOutputsTuple

from beam_jobs.dataset_output import prepare_encode, write_dataset
from beam_jobs.encode_codes import encode_codes
from beam_jobs.estimate import EstimatedJob, estimate_images
from beam_jobs.flags.codes import add_codes_options, add_input_option, check_codes
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
from beam_jobs.flags.files import add_part_option, add_size_options, check_part
from beam_jobs.flags.images import add_image_options, image_config
from beam_jobs.flags.score import add_bound_options, add_face_options, bounds_of, image_filter_of
from beam_jobs.part import plan, run_whole_or_part
from beam_jobs.run import command
from beam_jobs.run import prepare_process as prepare_process
from models.errors import UserError
from pipeline import tokenize_stage
from pipeline.dataset.existing import ExistingDataset, JoinedRows, JoinExisting, new_rejects, open_existing
from pipeline.dataset.stage import DropSameKeys
from pipeline.fetch import stored_shards
from pipeline.images import shard_format, shard_reader
from pipeline.output import parquet
from pipeline.output.counts import Step
from pipeline.output.finish import read_settings
from pipeline.output.ledger import read_ledger
from pipeline.output.names import REJECTS_FOLDER
from pipeline.records import REJECTED_TAG, Rejected
from pipeline.scores.folder_bounds import FolderBounds
from pipeline.scores.image_filter import ImageFilterConfig
from pipeline.tokenize_stage import EncodeImageShard


def main(arguments: list[str] | None = None) -> int:
    parser = job_parser("encode", __doc__.split("\n")[0])
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument(
        "--images",
        metavar="PATTERN",
        help="images as `pairmill fetch` and img2dataset write them: a folder, or a path or glob of tars or Parquet "
        "files; unlike `build`, encode cleans captions but rejects none, and fetches nothing that img2dataset lacks",
    )
    add_input_option(inputs)
    parser.add_argument(
        "--add-to",
        metavar="DATASET",
        help="finished dataset to extend: --output receives its pairs as they are, and those of --images or --codes "
        "that it lacks",
    )
    add_image_options(parser)
    add_encode_options(parser)
    add_bound_options(parser, with_folder=True)
    add_face_options(parser)
    add_size_options(parser)
    add_part_option(parser)
    add_estimate_options(parser, "images")
    add_codes_options(parser)
    args, beam_options = parse(parser, arguments)
    check_part(args)
    check_codes(args, parser)
    check_estimate(args)
    if args.codes:
        return encode_codes(args, beam_options, arguments, main)
    run_job = partial(_run, beam_options, arguments)
    if args.estimate:
        if args.add_to:
            raise UserError("--estimate: is of the new images alone; leave --add-to out")
        workers = workers_of(beam_options)
        return estimate_images(
            args, beam_options, EstimatedJob("encode", __spec__.name, workers, gpus_of(args, workers)), run_job
        )
    check_places(beam_options, args.output, [args.images, *filter(None, [args.add_to, args.exclude, args.scores])])
    return run_job(args)


def _run(beam_options: PipelineOptions, arguments: list[str] | None, args: argparse.Namespace) -> int:
    """Encodes the images. Returns the exit status."""
    image, encode = image_config(args), encode_config(args, beam_options)
    hints = encode_hints(args, beam_options)
    bounds, image_filter = bounds_of(args), image_filter_of(args, beam_options)
    paths = stored_shards.find_image_shards(args.images)
    before = shard_reader.fetch_output_of(paths)  # the folder of a finished `pairmill fetch`, or None
    settings = _settings(args, before, bounds, image_filter)
    old = open_existing([args.add_to]) if args.add_to else []
    sources = set(read_ledger(before)["sources"]) if before else {shard_format.SOURCE}
    parts = tokenize_stage.dataset_parts(encode, settings, sources)
    if not prepare_encode(args, beam_options, parts, old, {FileSystems.split(path)[0] for path in paths}):
        return 0
    encode = tokenize_stage.prepare_workers(encode, parts, args.output, has_remote_workers(beam_options))
    scores = bounds.prepare(args.output) if bounds else None
    if image_filter and has_remote_workers(beam_options):
        image_filter = image_filter.for_other_machines(args.output)
    shards = plan(args, Step.ENCODE, paths)
    encode_shard = EncodeImageShard(args.output, image, encode, old, scores, image_filter)

    def build(pipeline: beam.Pipeline) -> None:
        step = beam.ParDo(encode_shard)
        step.with_resource_hints(**hints)
        encoded = (
            pipeline
            | "Image shards" >> beam.Create(shards)
            | "Spread" >> beam.Reshuffle()
            | "Encode" >> step.with_outputs(REJECTED_TAG, main="records")
        )
        if not args.part:
            joined = _join(encoded, before, old, args.output)
            write_dataset(args, parts, joined.records, joined.rejects, joined.counts, near_config(args))

    return run_whole_or_part(args, beam_options, "encode", build, main, arguments)


def _settings(
    args: argparse.Namespace, before: str | None, bounds: FolderBounds | None, image_filter: ImageFilterConfig | None
) -> dict[str, Any]:
    """What the manifest records of the images, and of what the job does with them."""
    settings = (read_settings(before) if before else {"images": args.images}) | {"encode": encode_settings(args)}
    if bounds:
        settings["scores"] = bounds.settings
    return settings | (image_filter.settings if image_filter else {})


def _join(encoded: DoOutputsTuple, before: str | None, old: list[ExistingDataset], output: str) -> JoinedRows:
    """The encoded pairs, the rejects of `fetch` and the dataset of --add-to, without pairs that are there twice."""
    if before:
        records = encoded.records
        earlier = (
            encoded.records.pipeline
            | "Reject files" >> beam.Create(parquet.files_in(before, REJECTS_FOLDER)).with_output_types(str)
            | "Read rejects" >> beam.FlatMap(new_rejects, old).with_output_types(Rejected)
        )
    else:  # nothing has selected the pairs: a key may be there twice
        unique = encoded.records | "Same key" >> DropSameKeys(output)
        records, earlier = unique.records, unique[REJECTED_TAG]
    ledger = read_ledger(before) if before else None
    return (records, encoded[REJECTED_TAG], earlier) | "Join" >> JoinExisting(old, ledger, output)


if __name__ == "__main__":
    command(main)
