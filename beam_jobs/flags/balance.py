"""The option that balances concepts, hosts or sources."""

from __future__ import annotations

import argparse

from beam_jobs.flags.common import at_least
from pipeline.dataset.asked_balance import AskedBalance
from pipeline.dataset.balance import CONCEPT, HOST, SOURCE
from pipeline.dataset.concepts import read_concepts
from pipeline.output import files


def add_balance_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--balance",
        type=asked_balance,
        metavar="WHAT=LIMIT",
        help="keep about LIMIT pairs of each group that has more, the same ones each time; WHAT is host, source or a "
        "file of words and phrases, one on each line or a JSON list: then a pair stays if one of those in its caption "
        "keeps it, and a pair that has none is rejected",
    )


def asked_balance(text: str) -> AskedBalance:
    """The argparse type of WHAT=LIMIT. Raises UserError for a file that holds no concepts."""
    what, _, number = text.rpartition("=")
    if not what:
        raise argparse.ArgumentTypeError(f"{text}: give WHAT=LIMIT, such as host=1000 or words.txt=20000")
    limit = at_least(1)(number)
    if what in (HOST, SOURCE):
        return AskedBalance(what, limit)
    read_concepts(what)
    return AskedBalance(CONCEPT, limit, what, files.read(what))
