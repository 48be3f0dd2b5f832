"""`pairmill select`: source files to pairs/*.parquet, rejects/*.parquet and ledger.json."""

from __future__ import annotations

from functools import partial

import apache_beam as beam

from beam_jobs import options
from pipeline import parquet
from pipeline.finish import Finish, finish_select
from pipeline.ledger import KEPT, CountRows
from pipeline.select_stage import Select


def main(arguments: list[str] | None = None) -> int:
    parser = options.job_parser("select", __doc__.split("\n")[0])
    options.add_select_options(parser)
    options.add_picture_options(parser)
    options.add_rows_per_file(parser)
    parser.add_argument("--dry-run", action="store_true", help="only count: no pairs, no rejects, just ledger.json")
    args, beam_options = options.parse(parser, arguments)
    pieces, config = options.source_pieces(args.source), options.select_config(args)
    settings = {"select": options.select_settings(args)}
    options.prepare_output(args.output, "select", settings | {"dry_run": args.dry_run}, "ledger.json", args.overwrite)

    def build(pipeline: beam.Pipeline) -> None:
        selected = pipeline | "Select" >> Select(pieces, config)
        counts = (selected.read_counts,
                  selected.pairs | "Count kept" >> CountRows(KEPT),
                  selected.rejected | "Count rejected" >> CountRows()) | "Counts" >> beam.Flatten()
        if args.dry_run:
            written = pipeline | "No files" >> beam.Create([])
        else:
            written = (
                selected.pairs | "Write pairs" >> parquet.WriteParquet(
                    args.output, "pairs", parquet.PAIRS, args.rows_per_file),
                selected.rejected | "Write rejects" >> parquet.WriteParquet(
                    args.output, "rejects", parquet.REJECTS, args.rows_per_file),
            ) | "Files written" >> beam.Flatten()
        sources = sorted({piece.source for piece in pieces})
        _ = pipeline | "Finish" >> Finish(partial(finish_select, args.output, sources, settings), counts, written)

    return options.run(beam_options, args.output, "select", build)


if __name__ == "__main__":
    raise SystemExit(options.command(main))
