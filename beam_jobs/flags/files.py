"""Options of the files that are written."""

from __future__ import annotations

import argparse
import sys

from beam_jobs.flags.common import Group, at_least
from models.errors import UserError
from pipeline.dataset.shard_boundaries import PAIRS_PER_SHARD, ShardSize
from pipeline.output.parquet import ROWS_PER_FILE
from pipeline.output.parts import Part


def add_rows_per_file(parser: Group) -> None:
    parser.add_argument(
        "--rows-per-file",
        type=at_least(1),
        default=ROWS_PER_FILE,
        metavar="N",
        help="about how many rows each Parquet file holds",
    )


def add_part_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--part",
        type=part_of,
        metavar="I/N",
        help="do only the I-th of N equal parts, for array jobs: processes anywhere, each with the same options, the "
        "same --output on a shared disk or store and its own I from 1 to N; the last one that ends also finishes the "
        "output, as does the same command without --part",
    )


def part_of(text: str) -> Part:
    """The argparse type of parts."""
    number, slash, total = text.partition("/")
    if not slash or not (number.isdecimal() and total.isdecimal()) or not 1 <= int(number) <= int(total):
        raise argparse.ArgumentTypeError(f"{text}: give I/N with I from 1 to N, such as 2/8")
    return Part(int(number), int(total))


def without_part(arguments: list[str] | None) -> list[str]:
    """The arguments of a command but --part."""
    given = sys.argv[1:] if arguments is None else arguments
    skipped = {number + 1 for number, text in enumerate(given) if text == "--part"}
    return [
        text
        for number, text in enumerate(given)
        if number not in skipped and text != "--part" and not text.startswith("--part=")
    ]


def check_part(args: argparse.Namespace) -> None:
    """Raises UserError for --part with --overwrite."""
    if args.part and args.overwrite:
        raise UserError("--overwrite: each part would remove what the others did; remove the output first instead")


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
