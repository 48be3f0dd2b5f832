"""`pairmill cluster`: compares the images of scores with each other, and adds the score `redundancy`."""

from __future__ import annotations

from functools import partial

import apache_beam as beam

from beam_jobs.flags.common import job_parser, parse
from beam_jobs.flags.engine import check_places
from beam_jobs.run import command, prepare, run
from beam_jobs.run import prepare_process as prepare_process
from pipeline.output import parquet, schemas
from pipeline.output.counts import Step
from pipeline.output.finish import Finish, read_settings
from pipeline.output.ledger import KEPT, previous_counts, read_ledger
from pipeline.output.names import LEDGER_FILE, REJECTS_FOLDER
from pipeline.output.progress import write_plan
from pipeline.records import Rejected
from pipeline.scores.clusters import REDUNDANCY, WithRedundancy, find_centres
from pipeline.scores.score_files import open_scores
from pipeline.scores.stage import finish_scores


def main(arguments: list[str] | None = None) -> int:
    parser = job_parser("cluster", __doc__.split("\n")[0])
    parser.add_argument(
        "--scores", required=True, metavar="DIR", help="folder that `pairmill score --model` wrote, with embeddings"
    )
    args, beam_options = parse(parser, arguments)
    check_places(beam_options, args.output, [args.scores])
    scores = open_scores(args.scores, with_embeddings=True)
    before = read_ledger(args.scores)
    names = (*scores.names, REDUNDANCY)
    settings = read_settings(args.scores) | {"cluster": {"scores_sha256": scores.sha256}}
    centres = find_centres(scores)
    if not prepare(args, beam_options, "cluster", settings, LEDGER_FILE, [args.scores]):
        return 0
    kept = [((source, KEPT, ""), rows[KEPT]) for source, rows in before["sources"].items()]
    write_plan(args.output, Step.CLUSTER, sum(number for _, number in kept))

    def build(pipeline: beam.Pipeline) -> None:
        written = pipeline | "Redundancy" >> WithRedundancy(scores, centres, args.output)
        rejects = (
            pipeline
            | "Rejects" >> parquet.ReadParquet(parquet.files_in(args.scores, REJECTS_FOLDER), Rejected)
            | "Write rejects" >> parquet.WriteParquet(args.output, REJECTS_FOLDER, schemas.REJECTS)
        )
        counts = pipeline | "Counts" >> beam.Create([*previous_counts(before), *kept])
        _ = pipeline | "Finish" >> Finish(
            partial(finish_scores, args.output, settings, names), written, rejects, counts
        )

    return run(beam_options, args.output, "cluster", build, wait=not args.no_wait)


if __name__ == "__main__":
    command(main)
