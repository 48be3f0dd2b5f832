"""Pairs to pictures on disk, unit by unit, in img2dataset's layout."""

from __future__ import annotations

from typing import NamedTuple

import apache_beam as beam
import cv2

from pipeline import storage
from pipeline.fetch import FetchConfig, fetch_pictures
from pipeline.image_shards import ShardWriter, StoreConfig, read_fetched, read_metadata
from pipeline.ledger import read_ledger
from pipeline.pictures import PictureConfig
from pipeline.records import PASSING_REASONS, Pair, Rejected, Stage
from pipeline.units import Unit


class UnitAccount(NamedTuple):
    """What became of a unit's rows."""

    number: int
    kept: list[Pair]
    rejected: list[Rejected]


class FetchUnit(beam.DoFn):
    """Unit -> the tar, Parquet and statistics of its pictures; its fetched pairs, and rejects under their tag."""

    REJECTED = "rejected"

    def __init__(self, output: str, fetch: FetchConfig, pictures: PictureConfig, store: StoreConfig):
        self._output, self._fetch, self._pictures, self._store = output, fetch, pictures, store

    def setup(self) -> None:
        cv2.setNumThreads(1)  # the cores are busy with other pictures: its threads would wait for each other

    def process(self, unit: Unit):
        account = fetch_unit(unit, self._output, self._fetch, self._pictures, self._store)
        yield from account.kept
        for row in account.rejected:
            yield beam.pvalue.TaggedOutput(self.REJECTED, row)


def fetch_unit(unit: Unit, output: str, fetch: FetchConfig, pictures: PictureConfig, store: StoreConfig) -> UnitAccount:
    """Does what is missing of a unit: all of it, or the rows that failed for a passing reason, or nothing."""
    rows = {row["pair_key"]: row for row in read_metadata(output, unit.number)}
    finished = storage.exists(storage.join(output, f"{unit.number:05d}_stats.json"))
    settled = {key for key, row in rows.items() if row["status"] == "success" or row["reason"] not in PASSING_REASONS}
    wanted = {pair.key for pair in unit.pairs}
    if finished and settled == wanted:
        return _account(unit, rows)

    # Of a run that was killed between the three files, each is whole but may be older or newer than the next: what
    # the tar holds is done, whatever the rows say.
    with ShardWriter(output, unit.number, list(unit.pairs), store) as writer:
        done = set()
        for picture in read_fetched(output, unit.number):
            if (key := picture.metadata["pair_key"]) in wanted:
                writer.add_stored(picture.metadata, picture.data, picture.suffix)
                done.add(key)
        for key in (settled & wanted) - done:
            if rows[key]["status"] != "success":
                writer.add(_rejected(rows[key]))
                done.add(key)
        pending = [pair for pair in unit.pairs if pair.key not in done]
        for outcome in fetch_pictures(pending, fetch, pictures, store.resize or 1):
            writer.add(outcome)
        if finished:  # not any more, while the files are replaced
            storage.delete(output, [f"{unit.number:05d}_stats.json"])
        writer.write()
    return _account(unit, {row["pair_key"]: row for row in read_metadata(output, unit.number)})


def _account(unit: Unit, rows: dict[str, dict]) -> UnitAccount:
    kept = [pair for pair in unit.pairs if rows[pair.key]["status"] == "success"]
    rejected = [_rejected(row) for row in rows.values() if row["status"] != "success"]
    return UnitAccount(unit.number, kept, rejected)


def _rejected(row: dict) -> Rejected:
    detail = (row["error_message"] or "").partition(": ")[2]
    return Rejected(row["pair_key"], row["source"], row["file"], row["row"], row["url"], Stage.FETCH.value,
                    row["reason"], detail)


def failed_in_passing(output: str) -> int:
    """How many rows of a finished output failed for a reason that may be gone by now."""
    passing = {reason.value for reason in PASSING_REASONS}
    rejected = (account["rejected"].get(Stage.FETCH.value, {}) for account in read_ledger(output)["sources"].values())
    return sum(number for reasons in rejected for reason, number in reasons.items() if reason in passing)
