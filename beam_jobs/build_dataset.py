"""`pairmill build`: select, fetch and encode in one job. No picture is kept, only its codes."""

from __future__ import annotations

from functools import partial

import apache_beam as beam

from beam_jobs import options
from pipeline.dataset_stage import WriteDataset
from pipeline.finish import Finish
from pipeline.select_stage import ReadAndJudge, SelectedRows, read_count, with_indexes
from pipeline.shards import finish_dataset
from pipeline.tokenize_stage import FetchAndEncode
from pipeline.units import ToUnits


def main(arguments: list[str] | None = None) -> int:
    parser = options.job_parser("build", __doc__.split("\n")[0])
    options.add_select_options(parser)
    options.add_fetch_options(parser)
    options.add_picture_options(parser)
    options.add_encode_options(parser, required=False)
    options.add_size_options(parser)
    args, beam_options = options.parse(parser, arguments)
    pieces, select = options.source_pieces(args.source), options.select_config(args)
    sources = options.source_settings(args)
    fetch, pictures = options.fetch_config(args), options.picture_config(args)
    encode = options.encode_config(args, beam_options)
    settings = {
        "select": options.select_settings(args, pieces),
        "fetch": options.fetch_settings(args),
        "encode": options.encode_settings(args),
    }
    parts = options.dataset_parts(encode, settings, {piece.source for piece in pieces})
    options.prepare_output(args.output, "build", options.identity(parts), "manifest.json", args.overwrite)
    sources = with_indexes(sources, args.output)

    def build(pipeline: beam.Pipeline) -> None:
        accounts = pipeline | "Read" >> ReadAndJudge(pieces, select, sources, args.output)
        selected = accounts | "Select" >> SelectedRows(args.output, args.rows_per_file)
        encoded = (
            selected.pairs
            | "Units" >> ToUnits(args.pairs_per_unit, args.output)
            | "Fetch and encode"
            >> beam.ParDo(FetchAndEncode(args.output, fetch, pictures, encode)).with_outputs(
                FetchAndEncode.REJECTED, main="records"
            )
        )
        rejected = (selected[SelectedRows.REJECTED], encoded[FetchAndEncode.REJECTED]) | "Rejected" >> beam.Flatten()
        written = (encoded.records, rejected) | "Dataset" >> WriteDataset(
            args.output, args.draws, options.shard_size(args), args.rows_per_file, options.near_config(args)
        )
        counts = (accounts | "Count read" >> beam.Map(read_count), written.counts) | "Counts" >> beam.Flatten()
        _ = pipeline | "Finish" >> Finish(
            partial(finish_dataset, args.output, parts), written.shards, written.rejects, counts
        )

    return options.run(beam_options, args.output, "build", build)


if __name__ == "__main__":
    raise SystemExit(options.command(main))
