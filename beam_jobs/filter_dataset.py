"""`pairmill filter`: a dataset of the pairs of another one for which a condition holds; encodes nothing again."""

from __future__ import annotations

import dataclasses

import apache_beam as beam

from beam_jobs.dataset_output import write_dataset
from beam_jobs.flags.common import job_parser, parse
from beam_jobs.flags.engine import check_places
from beam_jobs.flags.files import add_size_options, shard_settings
from beam_jobs.run import command, prepare, run
from beam_jobs.run import prepare_process as prepare_process
from pipeline.dataset import finish
from pipeline.dataset.existing import ReadRejects, Subset, counts_read, open_existing, parts_of
from pipeline.output.counts import Step
from pipeline.output.ledger import read_ledger
from pipeline.output.names import MANIFEST_FILE
from pipeline.output.progress import write_plan
from pipeline.records import REJECTED_TAG
from pipeline.scores.condition import parse_condition
from pipeline.scores.filter import FilterRecords, condition_columns
from pipeline.scores.score_files import open_scores


def main(arguments: list[str] | None = None) -> int:
    parser = job_parser("filter", __doc__.split("\n")[0])
    parser.add_argument(
        "dataset", metavar="DATASET", help="folder of the dataset to read; name it before Beam's options"
    )
    parser.add_argument(
        "--where",
        required=True,
        metavar="CONDITION",
        help="SQL condition, as DuckDB has it, on a pair's columns in the index and its scores, such as 'clip > 0.28 "
        "and width >= 256'; a pair for which it does not hold, or depends on a score that the pair lacks, is rejected",
    )
    parser.add_argument(
        "--scores", metavar="DIR", help="folder that `pairmill score` wrote, whose scores --where can name"
    )
    add_size_options(parser)
    args, beam_options = parse(parser, arguments)
    inputs = [args.dataset, *filter(None, [args.scores])]
    check_places(beam_options, args.output, inputs)
    [dataset] = open_existing([args.dataset])
    scores = open_scores(args.scores) if args.scores else None
    condition = parse_condition(args.where, condition_columns(scores))
    sources = set(read_ledger(dataset.directory)["sources"])
    parts = parts_of([dataset], [Subset()], shard_settings(args), sources)
    filtered_by = {"where": args.where, "scores_sha256": scores.sha256 if scores else ""}
    parts = dataclasses.replace(parts, settings=parts.settings | {"filter": filtered_by})
    if not prepare(args, beam_options, "filter", finish.identity(parts), MANIFEST_FILE, inputs):
        return 0
    write_plan(args.output, Step.READ, sum(shard.pairs for shard in dataset.manifest.shards))

    def build(pipeline: beam.Pipeline) -> None:
        read = pipeline | "Filter" >> FilterRecords(dataset, condition, scores, args.output)
        earlier = pipeline | "Read rejects" >> ReadRejects([dataset])
        counts = pipeline | "Counts read" >> beam.Create(counts_read([dataset]))
        write_dataset(args, parts, (read.records,), (read[REJECTED_TAG], earlier), counts)

    return run(beam_options, args.output, "filter", build, wait=not args.no_wait)


if __name__ == "__main__":
    command(main)
