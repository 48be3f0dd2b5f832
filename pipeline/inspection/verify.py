"""`pairmill verify DIR`: checks that every byte of a dataset is as it was written and that its parts agree."""

from __future__ import annotations

import os

from models.command_line import CommandParser
from models.data.format import MANIFEST_FILE, read_manifest
from models.errors import UserError, printable
from models.files import can_list
from models.next_command import beside, print_next
from pipeline.inspection.faults import Fault, verify
from pipeline.inspection.repair import complete, repair


def main(arguments: list[str] | None = None) -> int:
    parser = CommandParser("verify", __doc__.split("\n")[0])
    parser.add_argument("directory", metavar="DIR", help="dataset to check")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="processes that check shards (default: one for each core)",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="delete damaged shards, record their pairs as rejected, and print what was lost",
    )
    args = parser.parse_args(arguments)
    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: give 1 or more")
    if args.repair and not can_list(args.directory):
        raise UserError(f"--repair: {args.directory} cannot be written to; copy it, then repair the copy")
    faults = _faults(args.directory, args.workers, completes=args.repair)
    for fault in faults:
        print(printable(str(fault)))
    if faults and args.repair:
        for line in repair(args.directory, faults):
            print(printable(line))
        faults = verify(args.directory, args.workers)
        for fault in faults:
            print(f"not repaired: {printable(str(fault))}")
    if faults:
        print(
            f"verify: {args.directory}: {len(faults):,} fault{'s' * (len(faults) != 1)}; build it again"
            + " or drop the shards at fault with --repair" * (not args.repair)
        )
        return 1
    manifest = read_manifest(args.directory)
    pairs = sum(shard.pairs for shard in manifest.shards)
    print(f"verify: {args.directory}: {pairs:,} pairs in {len(manifest.shards):,} shards, all as written")
    print_next(["train", "--dataset", args.directory, "--output", beside(args.directory, "model")])
    return 0


def _faults(directory: str, workers: int, completes: bool) -> list[Fault]:
    """The faults of a dataset; with `completes` after what a repair has left that was killed after its manifest."""
    faults = verify(directory, workers)
    is_readable = all(fault.path != MANIFEST_FILE for fault in faults)
    if faults and completes and is_readable and complete(directory, read_manifest(directory)):
        return verify(directory, workers)
    return faults
