"""`pairmill fetch`: downloads the images of pairs/*.parquet and stores them in img2dataset's layout."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import DoOutputsTuple

from beam_jobs.estimate import EstimatedJob, estimate_pairs
from beam_jobs.flags.common import at_least, job_parser, parse, workers_of
from beam_jobs.flags.engine import check_places
from beam_jobs.flags.estimate import add_estimate_options, check_estimate
from beam_jobs.flags.fetch import add_fetch_options, fetch_config, fetch_settings, fetching_machines, host_limits
from beam_jobs.flags.files import add_part_option, add_rows_per_file, check_part
from beam_jobs.flags.images import add_image_options, add_store_options, image_config, store_config
from beam_jobs.part import prepare, run_whole_or_part
from beam_jobs.run import command, warn_if_empty
from beam_jobs.run import prepare_process as prepare_process
from models.errors import UserError
from pipeline.fetch.attempts import start_next_attempt
from pipeline.fetch.stage import FetchUnit, finish_fetch, read_attempt
from pipeline.fetch.units import GroupIntoUnits, GroupIntoUnitsOfPart, count_read
from pipeline.output import files, parquet, schemas
from pipeline.output.counts import Step
from pipeline.output.finish import Finish, read_settings
from pipeline.output.ledger import KEPT, CountRows, previous_counts, read_ledger
from pipeline.output.names import LEDGER_FILE, PAIRS_FOLDER, REJECTS_FOLDER
from pipeline.output.progress import write_plan
from pipeline.records import REJECTED_TAG, Pair, Rejected


def main(arguments: list[str] | None = None) -> int:
    parser = job_parser("fetch", __doc__.split("\n")[0])
    parser.add_argument("--pairs", required=True, metavar="DIR", help="folder that `pairmill select` wrote")
    parser.add_argument(
        "--attempts",
        type=at_least(1),
        default=5,
        metavar="N",
        help="runs of this command, the first included, in which images are tried again after a failure that may be "
        "temporary",
    )
    add_fetch_options(parser)
    add_image_options(parser)
    add_store_options(parser)
    add_rows_per_file(parser)
    add_part_option(parser)
    add_estimate_options(parser, "pairs")
    args, beam_options = parse(parser, arguments)
    check_part(args)
    check_estimate(args)
    run_job = partial(_run, beam_options, arguments)
    if args.estimate:
        job = EstimatedJob(
            name="fetch",
            module=__spec__.name,
            workers=workers_of(beam_options),
            limits=host_limits(args),
            pairs_per_unit=args.pairs_per_unit,
        )
        return estimate_pairs(args, beam_options, job, _number_of_pairs(args.pairs), run_job)
    check_places(beam_options, args.output, [args.pairs])
    return run_job(args)


def _number_of_pairs(folder: str) -> int:
    """The pairs of a selection. Raises UserError if the folder is not a finished one."""
    if not files.exists(files.join(folder, LEDGER_FILE)):
        raise UserError(f"--pairs {folder}: no ledger.json there; run `pairmill select` to its end first")
    if not parquet.files_in(folder, PAIRS_FOLDER):
        raise UserError(f"--pairs {folder}: no pairs/*.parquet there; run `pairmill select` without --dry-run")
    return sum(rows[KEPT] for rows in read_ledger(folder)["sources"].values())


def _run(beam_options: PipelineOptions, arguments: list[str] | None, args: argparse.Namespace) -> int:
    """Fetches the images of the pairs. Returns the exit status."""
    fetch = dataclasses.replace(fetch_config(args), machines=fetching_machines(args, beam_options))
    image, store = image_config(args), store_config(args)
    number_of_pairs = _number_of_pairs(args.pairs)
    settings = read_settings(args.pairs) | {"fetch": fetch_settings(args)}
    if _is_complete(args, settings) or not prepare(args, beam_options, "fetch", settings, LEDGER_FILE, [args.pairs]):
        return 0
    attempt = read_attempt(args.output)
    write_plan(args.output, Step.READ, number_of_pairs)
    fetch_unit = FetchUnit(args.output, attempt, fetch, image, store)

    def build(pipeline: beam.Pipeline) -> None:
        units = _read_units(pipeline, args, number_of_pairs, attempt)
        fetched = units | "Fetch" >> beam.ParDo(fetch_unit).with_outputs(REJECTED_TAG, main="pairs")
        if not args.part:
            _finish(pipeline, args, settings, fetched)

    return run_whole_or_part(args, beam_options, "fetch", build, main, arguments)


def _is_complete(args: argparse.Namespace, settings: dict[str, Any]) -> bool:
    """Whether a finished output needs no further attempt; prints why."""
    if args.part or args.overwrite or not (line := start_next_attempt(args.output, settings, args.attempts)):
        return False
    print(f"fetch: {line}")
    warn_if_empty(args.output, "fetch")
    return True


def _read_units(
    pipeline: beam.Pipeline, args: argparse.Namespace, number_of_pairs: int, attempt: int
) -> beam.PCollection:
    """The pairs of the selection in units of work, or with --part its share of them."""
    pairs = (
        pipeline
        | "Read pairs" >> parquet.ReadParquet(parquet.files_in(args.pairs, PAIRS_FOLDER), Pair)
        | "Count read" >> beam.Map(count_read, args.output).with_output_types(Pair)
    )
    if not args.part:
        return pairs | "Units" >> GroupIntoUnits(args.pairs_per_unit, args.output, Step.FETCH, attempt)
    numbers = pipeline | "Number of pairs" >> beam.Create([number_of_pairs])
    return (pairs, numbers) | "Units" >> GroupIntoUnitsOfPart(
        args.pairs_per_unit, args.output, args.part, Step.FETCH, attempt
    )


def _finish(
    pipeline: beam.Pipeline, args: argparse.Namespace, settings: dict[str, Any], fetched: DoOutputsTuple
) -> None:
    """Writes the rejects of the selection and of the units, and then what makes the output complete."""
    earlier = pipeline | "Read rejects" >> parquet.ReadParquet(parquet.files_in(args.pairs, REJECTS_FOLDER), Rejected)
    written = (
        fetched[REJECTED_TAG],
        earlier,
    ) | "Write rejects" >> parquet.WriteParquet(args.output, REJECTS_FOLDER, schemas.REJECTS, args.rows_per_file)
    counts = (
        pipeline | "Counts before" >> beam.Create(previous_counts(read_ledger(args.pairs))),
        fetched.pairs | "Count kept" >> CountRows(KEPT),
        fetched[REJECTED_TAG] | "Count rejected" >> CountRows(),
    ) | "Counts" >> beam.Flatten()
    _ = pipeline | "Finish" >> Finish(partial(finish_fetch, args.output, settings), counts, written)


if __name__ == "__main__":
    command(main)
