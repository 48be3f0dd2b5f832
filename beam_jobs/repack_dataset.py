"""`pairmill repack`: merges datasets, reduces them to a share or changes the size of shards; encodes nothing again."""

from __future__ import annotations

import dataclasses

import apache_beam as beam

from beam_jobs.dataset_output import write_dataset
from beam_jobs.flags.balance import add_balance_option
from beam_jobs.flags.common import job_parser, parse, share
from beam_jobs.flags.engine import check_places
from beam_jobs.flags.files import add_size_options, shard_settings
from beam_jobs.run import command, prepare, run
from beam_jobs.run import prepare_process as prepare_process
from models.errors import UserError
from pipeline.dataset import finish
from pipeline.dataset.existing import ReadRecords, ReadRejects, Subset, counts_read, open_existing, parts_of
from pipeline.output.counts import Step
from pipeline.output.ledger import read_ledger
from pipeline.output.names import MANIFEST_FILE
from pipeline.output.progress import write_plan
from pipeline.records import REJECTED_TAG

SHARE_FIX = (
    "give a number above 0, at most 1; a dataset holds a pair once: how often training uses it is set there, by "
    "Stream(..., weights={SOURCE: 2})"
)


def main(arguments: list[str] | None = None) -> int:
    parser = job_parser("repack", __doc__.split("\n")[0])
    parser.add_argument(
        "--dataset",
        action="append",
        required=True,
        metavar="DIR",
        help="dataset to read; repeatable; a pair that several datasets hold is taken from the first",
    )
    parser.add_argument(
        "--share",
        action="append",
        type=share(lambda number: 0 < number <= 1, SHARE_FIX),
        default=[],
        metavar="W",
        help="share of a dataset's pairs to keep, above 0 and at most 1; give one for each --dataset, in the same "
        "order (default: all pairs); a share always keeps the same pairs, and a larger one keeps these, too",
    )
    parser.add_argument(
        "--only-source",
        action="append",
        default=[],
        metavar="NAME",
        help="keep only the pairs of this source, such as cc12m; repeatable",
    )
    add_balance_option(parser)
    add_size_options(parser)
    args, beam_options = parse(parser, arguments)
    check_places(beam_options, args.output, args.dataset)
    if args.share and len(args.share) != len(args.dataset):
        raise UserError(f"--share: {len(args.share)} for {len(args.dataset)} datasets; give one for each, or none")
    datasets = open_existing(args.dataset)
    sources = {source for each in datasets for source in read_ledger(each.directory)["sources"]}
    if unknown := set(args.only_source) - sources:
        raise UserError(f"--only-source {min(unknown)}: the datasets have {', '.join(sorted(sources))}")
    subsets = [Subset(number, tuple(args.only_source)) for number in args.share or [1.0] * len(datasets)]
    parts = parts_of(datasets, subsets, shard_settings(args), sources)
    if args.balance:
        parts = dataclasses.replace(parts, settings=parts.settings | {"balance": args.balance.settings})
    if not prepare(args, beam_options, "repack", finish.identity(parts), MANIFEST_FILE, args.dataset):
        return 0
    balance = args.balance and args.balance.prepare(args.output)
    write_plan(args.output, Step.READ, sum(shard.pairs for each in datasets for shard in each.manifest.shards))

    def build(pipeline: beam.Pipeline) -> None:
        read = pipeline | "Datasets" >> ReadRecords(datasets, subsets, args.output, counts_progress=True)
        earlier = pipeline | "Read rejects" >> ReadRejects(datasets)
        counts = pipeline | "Counts read" >> beam.Create(counts_read(datasets))
        write_dataset(args, parts, (read.records,), (read[REJECTED_TAG], earlier), counts, balance=balance)

    return run(beam_options, args.output, "repack", build, wait=not args.no_wait)


if __name__ == "__main__":
    command(main)
