"""`pairmill score`: measures images and captions, and how well they agree, by models that the user brings."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import DoOutputsTuple

from beam_jobs.estimate import EstimatedJob, estimate_images
from beam_jobs.flags.common import job_parser, parse, workers_of
from beam_jobs.flags.encode import gpus_of
from beam_jobs.flags.engine import check_places, has_remote_workers
from beam_jobs.flags.estimate import add_estimate_options, check_estimate
from beam_jobs.flags.files import add_part_option, add_rows_per_file, check_part
from beam_jobs.flags.images import add_image_options, image_config
from beam_jobs.flags.score import add_score_options, scoring
from beam_jobs.part import plan, prepare, run_whole_or_part
from beam_jobs.run import command
from beam_jobs.run import prepare_process as prepare_process
from pipeline.fetch import stored_shards
from pipeline.images import shard_reader
from pipeline.output import parquet, schemas
from pipeline.output.counts import Step
from pipeline.output.finish import Finish, read_settings
from pipeline.output.ledger import KEPT, READ, CountRows, previous_counts, read_ledger
from pipeline.output.names import LEDGER_FILE, REJECTS_FOLDER
from pipeline.records import REJECTED_TAG, Rejected
from pipeline.scores.scorer import score_settings, stage_files
from pipeline.scores.stage import ROWS_PER_FILE, ScoreImageShard, WriteScores, finish_scores
from pipeline.version import decisive_versions


def main(arguments: list[str] | None = None) -> int:
    parser = job_parser("score", __doc__.split("\n")[0])
    parser.add_argument(
        "--images",
        required=True,
        metavar="PATTERN",
        help="images as `pairmill fetch` and img2dataset write them: a folder, or a path or glob of tars or Parquet "
        "files",
    )
    add_score_options(parser)
    add_image_options(parser)
    add_rows_per_file(parser)
    parser.set_defaults(rows_per_file=ROWS_PER_FILE)
    add_part_option(parser)
    add_estimate_options(parser, "images")
    args, beam_options = parse(parser, arguments)
    check_part(args)
    check_estimate(args)
    run_job = partial(_run, beam_options, arguments)
    if args.estimate:
        workers = workers_of(beam_options)
        return estimate_images(
            args, beam_options, EstimatedJob("score", __spec__.name, workers, gpus_of(args, workers)), run_job
        )
    check_places(beam_options, args.output, [args.images])
    return run_job(args)


def _run(beam_options: PipelineOptions, arguments: list[str] | None, args: argparse.Namespace) -> int:
    """Scores the images. Returns the exit status."""
    image, config = image_config(args), scoring(args, beam_options)
    paths = stored_shards.find_image_shards(args.images)
    before = shard_reader.fetch_output_of(paths)  # the folder of a finished `pairmill fetch`, or None
    settings = (read_settings(before) if before else {"images": args.images}) | {
        "score": score_settings(config) | dataclasses.asdict(image) | {"rows_per_file": args.rows_per_file},
        "versions": decisive_versions(),
    }
    inputs = {FileSystems.split(path)[0] for path in paths}
    if not prepare(args, beam_options, "score", settings, LEDGER_FILE, inputs):
        return 0
    if has_remote_workers(beam_options):
        config = stage_files(config, args.output)
    shards = plan(args, Step.SCORE, paths)

    def build(pipeline: beam.Pipeline) -> None:
        scored = (
            pipeline
            | "Image shards" >> beam.Create(shards)
            | "Spread" >> beam.Reshuffle()
            | "Score"
            >> beam.ParDo(ScoreImageShard(args.output, image, config)).with_outputs(REJECTED_TAG, main="pairs")
        )
        if not args.part:
            written = scored.pairs | "Scores" >> WriteScores(args.output, config, args.rows_per_file)
            rejects, counts = _rejects_and_counts(scored, written, before)
            reject_files = rejects | "Write rejects" >> parquet.WriteParquet(
                args.output, REJECTS_FOLDER, schemas.REJECTS
            )
            all_counts = (*counts, written[KEPT]) | "Counts" >> beam.Flatten()
            _ = pipeline | "Finish" >> Finish(
                partial(finish_scores, args.output, settings, config.names), written.files, reject_files, all_counts
            )

    return run_whole_or_part(args, beam_options, "score", build, main, arguments)


def _rejects_and_counts(
    scored: DoOutputsTuple, written: DoOutputsTuple, before: str | None
) -> tuple[tuple[beam.PCollection, ...], tuple[beam.PCollection, ...]]:
    """The rejects of this job and of `fetch`, and the ledger's counts of rows read and rejected, all in parts."""
    rejects = (scored[REJECTED_TAG], written[REJECTED_TAG])
    counts = tuple(rows | f"Count rejected {number}" >> CountRows() for number, rows in enumerate(rejects))
    if not before:
        read = enumerate((scored.pairs, scored[REJECTED_TAG]))
        return rejects, (*counts, *(rows | f"Count read {number}" >> CountRows(READ) for number, rows in read))
    pipeline, earlier = scored.pairs.pipeline, parquet.files_in(before, REJECTS_FOLDER)
    rejects_before = pipeline | "Rejects of fetch" >> parquet.ReadParquet(earlier, Rejected)
    counts_before = pipeline | "Counts of fetch" >> beam.Create(previous_counts(read_ledger(before)))
    return (*rejects, rejects_before), (*counts, counts_before)


if __name__ == "__main__":
    command(main)
