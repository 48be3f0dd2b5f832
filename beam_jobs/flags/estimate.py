"""Options of estimates."""

from __future__ import annotations

import argparse

from beam_jobs.flags.common import at_least
from models.errors import UserError

ROWS = 2000


def add_estimate_options(parser: argparse.ArgumentParser, unit: str = "rows") -> None:
    group = parser.add_argument_group("estimate")
    group.add_argument(
        "--estimate",
        nargs="?",
        type=at_least(1),
        const=ROWS,
        metavar="N",
        help=f"run the job on a sample of about N {unit} in a temporary folder ({ROWS} if N is left out), and print "
        "what all of them will take; nothing is written to --output",
    )
    group.add_argument("--json", action="store_true", help="print the estimate as JSON instead of tables")


def check_estimate(args: argparse.Namespace) -> None:
    """Raises UserError for --json without --estimate."""
    if args.json and not args.estimate:
        raise UserError("--json: is the form of an estimate; give it with --estimate")
