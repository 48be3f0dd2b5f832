"""Options of the files that are written."""

from __future__ import annotations

import argparse

from models.errors import UserError
from pipeline.dataset.shard_boundaries import PAIRS_PER_SHARD, ShardSize
from pipeline.output.parquet import ROWS_PER_FILE


def add_rows_per_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows-per-file", type=int, default=ROWS_PER_FILE, metavar="N", help="of the Parquet files")


def add_size_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument(
        "--pairs-per-shard",
        type=int,
        metavar="N",
        help=f"at most; the shards of a split have equally many (default: {PAIRS_PER_SHARD})",
    )
    group.add_argument("--bytes-per-shard", type=int, metavar="N", help="instead: about so many bytes, equally many")
    add_rows_per_file(group)


def shard_size(args: argparse.Namespace) -> ShardSize:
    """Raises UserError for both kinds at once."""
    if args.pairs_per_shard and args.bytes_per_shard:
        raise UserError("--pairs-per-shard and --bytes-per-shard: give one of them")
    return ShardSize(args.pairs_per_shard or PAIRS_PER_SHARD, args.bytes_per_shard or 0)


def shard_settings(args: argparse.Namespace) -> dict[str, int]:
    size = shard_size(args)
    return {"bytes": size.bytes} if size.bytes else {"pairs": size.pairs}
