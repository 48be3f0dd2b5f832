"""Pairs to fetch from the hostile server, and what became of them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from pipeline.fetch.download import FetchConfig
from pipeline.fetch.fetcher import fetch_images
from pipeline.images.fetched import FetchedImage
from pipeline.images.validate import ImageConfig
from pipeline.output.files import write_file
from pipeline.output.ledger import KEPT, READ, build_ledger, write_ledger
from pipeline.output.parquet import table_bytes
from pipeline.output.schemas import PAIRS
from pipeline.records import Pair, Rejected

TIMEOUT_S = 5.0  # what should not time out has to be done by then, on a busy machine too
SLACK_S = 6.0  # for a busy machine
MAX_BYTES = 2_000_000
QUICK = FetchConfig(
    timeout_s=TIMEOUT_S,
    retries=0,
    max_bytes=MAX_BYTES,
    connections=128,
    per_host_connections=128,
    per_host_rate=10_000,
    allow_addresses=("127.0.0.0/8",),
)


def pair(url: str, *fallback_urls: str, key: str | None = None) -> Pair:
    key = key or hashlib.sha256(repr((url, fallback_urls)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return Pair(key, "test", "list.tsv", 0, url, fallback_urls, "a cat", "A cat", None, None, "", "", "train")


def with_settings(**settings) -> FetchConfig:
    return dataclasses.replace(QUICK, **settings)


def outcomes(pairs: list[Pair], config: FetchConfig = QUICK) -> list[FetchedImage | Rejected]:
    """In the order of the pairs; every pair has one."""
    found = {
        (outcome.pair.key if isinstance(outcome, FetchedImage) else outcome.key): outcome
        for outcome in fetch_images(pairs, config, ImageConfig())
    }
    assert found.keys() == {pair.key for pair in pairs}
    return [found[pair.key] for pair in pairs]


def outcome(pair: Pair, config: FetchConfig = QUICK) -> FetchedImage | Rejected:
    return outcomes([pair], config)[0]


def result(outcome: FetchedImage | Rejected) -> str:
    return "fetched" if isinstance(outcome, FetchedImage) else outcome.reason


def write_pairs(folder: Path, pairs: list[Pair]) -> None:
    """As `pairmill select` leaves them."""
    write_file(str(folder), "pairs/00000-of-00001.parquet", table_bytes(pairs, PAIRS))
    write_ledger(str(folder), build_ledger([(("test", what, ""), len(pairs)) for what in (READ, KEPT)], ["test"]))
