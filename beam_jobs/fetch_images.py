"""`pairmill fetch`: pairs/*.parquet to pictures in img2dataset's layout."""

from __future__ import annotations

from functools import partial

import apache_beam as beam

from beam_jobs import options
from models.errors import UserError
from pipeline import parquet, storage
from pipeline.fetch_stage import FetchUnit, failed_in_passing, read_attempt, write_attempt
from pipeline.finish import Finish, finish_fetch, read_settings
from pipeline.ledger import KEPT, CountRows, earlier_counts, read_ledger
from pipeline.records import Pair, Rejected
from pipeline.units import ToUnits


def main(arguments: list[str] | None = None) -> int:
    parser = options.job_parser("fetch", __doc__.split("\n")[0])
    parser.add_argument("--pairs", required=True, metavar="DIR", help="the output of `pairmill select`")
    parser.add_argument(
        "--resize",
        type=int,
        default=0,
        metavar="N",
        help="px of the shorter side, never enlarged; 0 keeps the bytes as fetched",
    )
    parser.add_argument("--image-format", choices=("jpg", "webp", "png"), default="jpg", help="of resized pictures")
    parser.add_argument("--quality", type=int, default=95, metavar="Q", help="of resized JPEG and WebP")
    parser.add_argument(
        "--attempts",
        type=int,
        default=5,
        metavar="N",
        help="runs in which a row that fails for a passing reason is tried",
    )
    options.add_fetch_options(parser)
    options.add_picture_options(parser)
    options.add_rows_per_file(parser)
    args, beam_options = options.parse(parser, arguments)
    fetch, pictures, store = options.fetch_config(args), options.picture_config(args), options.store_config(args)
    if not storage.exists(storage.join(args.pairs, "ledger.json")):
        raise UserError(f"--pairs {args.pairs}: no ledger.json there; run `pairmill select` to its end first")
    if not (pair_files := parquet.files_in(args.pairs, "pairs")):
        raise UserError(f"--pairs {args.pairs}: no pairs/*.parquet there; was it made with --dry-run?")
    counts_before = earlier_counts(read_ledger(args.pairs))
    settings = read_settings(args.pairs) | {"fetch": options.fetch_settings(args)}
    if not args.overwrite and options.is_finished(args.output, "ledger.json"):
        if not (failed := failed_in_passing(args.output)):
            print(f"fetch: {args.output} is complete, and no row in it failed for a passing reason: nothing to do")
            return 0
        if (attempt := read_attempt(args.output)) >= args.attempts:
            print(
                f"fetch: {args.output} is complete; {failed} rows failed for a passing reason, after {attempt} runs: "
                f"nothing to do; --attempts {attempt + 1} tries them once more"
            )
            return 0
        options.reopen_output(args.output, "fetch", settings, "ledger.json")
        write_attempt(args.output, attempt + 1)
    options.prepare_output(args.output, "fetch", settings, "ledger.json", args.overwrite, [args.pairs])
    attempt = read_attempt(args.output)

    def build(pipeline: beam.Pipeline) -> None:
        pairs = pipeline | "Read pairs" >> parquet.ReadParquet(pair_files, Pair)
        fetched = (
            pairs
            | "Units" >> ToUnits(args.pairs_per_unit, args.output)
            | "Fetch"
            >> beam.ParDo(FetchUnit(args.output, attempt, fetch, pictures, store)).with_outputs(
                FetchUnit.REJECTED, main="pairs"
            )
        )
        earlier = pipeline | "Read rejects" >> parquet.ReadParquet(parquet.files_in(args.pairs, "rejects"), Rejected)
        written = (
            (fetched[FetchUnit.REJECTED], earlier)
            | "Rejects" >> beam.Flatten()
            | ("Write rejects" >> parquet.WriteParquet(args.output, "rejects", parquet.REJECTS, args.rows_per_file))
        )
        counts = (
            pipeline | "Counts before" >> beam.Create(counts_before),
            fetched.pairs | "Count kept" >> CountRows(KEPT),
            fetched[FetchUnit.REJECTED] | "Count rejected" >> CountRows(),
        ) | "Counts" >> beam.Flatten()
        _ = pipeline | "Finish" >> Finish(partial(finish_fetch, args.output, settings), counts, written)

    return options.run(beam_options, args.output, "fetch", build)


if __name__ == "__main__":
    raise SystemExit(options.command(main))
