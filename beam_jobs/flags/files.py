"""Options of the files that are written."""

from __future__ import annotations

import argparse

from beam_jobs.flags.common import Group, at_least
from models.errors import UserError
from pipeline.dataset.shard_boundaries import PAIRS_PER_SHARD, ShardSize
from pipeline.output.parquet import ROWS_PER_FILE


def add_rows_per_file(parser: Group) -> None:
    parser.add_argument(
        "--rows-per-file",
        type=at_least(1),
        default=ROWS_PER_FILE,
        metavar="N",
        help="about how many rows each Parquet file holds",
    )


def add_size_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument(
        "--pairs-per-shard",
        type=at_least(1),
        metavar="N",
        help="largest number of pairs in a shard; the shards of a split differ by one pair at most "
        f"(default: {PAIRS_PER_SHARD})",
    )
    group.add_argument(
        "--bytes-per-shard",
        type=at_least(1),
        metavar="N",
        help="approximate size of a shard in bytes, in place of --pairs-per-shard",
    )
    add_rows_per_file(group)


def shard_size(args: argparse.Namespace) -> ShardSize:
    """Raises UserError if both --pairs-per-shard and --bytes-per-shard are given."""
    if args.pairs_per_shard and args.bytes_per_shard:
        raise UserError("--pairs-per-shard and --bytes-per-shard: give one of them")
    return ShardSize(args.pairs_per_shard or PAIRS_PER_SHARD, args.bytes_per_shard or 0)


def shard_settings(args: argparse.Namespace) -> dict[str, int]:
    """The shard size as the manifest states it: {"bytes": N} or {"pairs": N}."""
    size = shard_size(args)
    return {"bytes": size.bytes} if size.bytes else {"pairs": size.pairs}
