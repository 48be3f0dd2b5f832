"""The option that balances concepts, hosts or sources."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import PurePath
from typing import Any, NamedTuple

from beam_jobs.flags.common import at_least
from pipeline.dataset.balance import CONCEPT, HOST, SOURCE, Balance
from pipeline.dataset.concepts import read_concepts
from pipeline.output import files
from pipeline.output.names import CONCEPTS_FILE, WORK_FOLDER


def add_balance_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--balance",
        type=asked_balance,
        metavar="WHAT=LIMIT",
        help="keep about LIMIT pairs of each group that has more, the same ones each time; WHAT is host, source or a "
        "file of words and phrases, one on each line or a JSON list: then a pair stays if one of those in its caption "
        "keeps it, and a pair that has none is rejected",
    )


class AskedBalance(NamedTuple):
    """What the option asks for."""

    by: str
    limit: int
    path: str = ""  # of the user's file of concepts
    data: bytes = b""

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"by": self.by, "limit": self.limit} | ({"concepts_sha256": self._sha256} if self.path else {})

    def prepare(self, output: str) -> Balance:
        """Writes the concepts into the output's work folder, where all workers can read them."""
        if not self.path:
            return Balance(self.by, self.limit)
        copy = files.join(output, WORK_FOLDER, CONCEPTS_FILE + PurePath(self.path).suffix)
        files.write_atomically(copy, self.data)
        return Balance(self.by, self.limit, copy, self._sha256)

    @property
    def _sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


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
