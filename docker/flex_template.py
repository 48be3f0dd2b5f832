"""Starts a job from a Dataflow Flex Template, whose parameters are a command and all its options in one text.

    --command=build --options="--source cc12m=gs://BUCKET/cc12m.tsv --output gs://BUCKET/cc12m"

What else the template's launcher passes (project, region, places for temporary files) goes to Beam.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from pipeline import cli


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--command", required=True, choices=("build", "select", "fetch", "encode", "repack"))
    parser.add_argument("--options", required=True, metavar="TEXT", help="quoted as in a shell")
    args, remaining = parser.parse_known_args(arguments)
    return cli.main([args.command, *shlex.split(args.options), *remaining])


if __name__ == "__main__":
    sys.exit(main())
