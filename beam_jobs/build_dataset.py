"""`pairmill build`: select, fetch and encode in one job. No picture is kept, only its codes."""

from __future__ import annotations

from functools import partial

import apache_beam as beam

from beam_jobs import run
from beam_jobs.flags import common
from beam_jobs.flags import encode as flags_encode
from beam_jobs.flags import fetch as flags_fetch
from pipeline.dataset.shards import finish_dataset
from pipeline.dataset.stage import WriteDataset
from pipeline.output import state
from pipeline.output.finish import Finish
from pipeline.output.work_folder import ToUnits
from pipeline.select.stage import ReadAndJudge, SelectedRows, read_count, with_indexes
from pipeline.tokenize_stage import FetchAndEncode


def main(arguments: list[str] | None = None) -> int:
    parser = common.job_parser("build", __doc__.split("\n")[0])
    common.add_select_options(parser)
    common.add_fetch_options(parser)
    common.add_picture_options(parser)
    flags_encode.add_encode_options(parser, required=False)
    flags_encode.add_size_options(parser)
    args, beam_options = common.parse(parser, arguments)
    pieces, select = flags_fetch.source_pieces(args.source), flags_fetch.select_config(args)
    sources = flags_fetch.source_settings(args)
    fetch, pictures = flags_fetch.fetch_config(args), flags_fetch.picture_config(args)
    encode = flags_encode.encode_config(args, beam_options)
    settings = {
        "select": flags_fetch.select_settings(args, pieces),
        "fetch": flags_fetch.fetch_settings(args),
        "encode": flags_encode.encode_settings(args),
    }
    parts = flags_encode.dataset_parts(encode, settings, {piece.source for piece in pieces})
    state.prepare_output(args.output, "build", flags_encode.identity(parts), "manifest.json", args.overwrite)
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
            args.output, args.draws, flags_encode.shard_size(args), args.rows_per_file, flags_encode.near_config(args)
        )
        counts = (accounts | "Count read" >> beam.Map(read_count), written.counts) | "Counts" >> beam.Flatten()
        _ = pipeline | "Finish" >> Finish(
            partial(finish_dataset, args.output, parts), written.shards, written.rejects, counts
        )

    return run.run(beam_options, args.output, "build", build)


if __name__ == "__main__":
    raise SystemExit(run.command(main))
