"""Pairs to pictures on disk, unit by unit, in img2dataset's layout."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

import apache_beam as beam

from pipeline.fetch.download import FetchConfig
from pipeline.fetch.fetcher import DownloadStats, fetch_images
from pipeline.fetch.process_setup import configure_process
from pipeline.fetch.units import Unit
from pipeline.images.shard_format import read_metadata
from pipeline.images.shard_reader import read_fetched
from pipeline.images.shard_writer import ShardWriter, StoreConfig
from pipeline.images.validate import ImageConfig
from pipeline.output import files, ledger
from pipeline.output.files import WrittenFile, to_json
from pipeline.output.finish import remove_stale_files, write_settings
from pipeline.output.ledger import Count, read_ledger
from pipeline.output.work_folder import FETCHED_FOLDER, WORK_FOLDER
from pipeline.records import TRANSIENT_REASONS, Pair, Rejected, Stage

ATTEMPTS_FILE = "attempts.json"
SLOWEST_HOSTS = 20  # of a unit, that are told to those who watch


class UnitResult(NamedTuple):
    """What became of a unit's rows."""

    number: int
    kept: list[Pair]
    rejected: list[Rejected]


class FetchUnit(beam.DoFn):
    """Unit -> the tar, Parquet and statistics of its pictures; its fetched pairs, and rejects under their tag."""

    REJECTED = "rejected"

    def __init__(self, output: str, attempt: int, fetch: FetchConfig, image_config: ImageConfig, store: StoreConfig):
        self._output, self._attempt, self._fetch = output, attempt, fetch
        self._image_config, self._store = image_config, store

    def setup(self) -> None:
        configure_process()

    def process(self, unit: Unit):
        account = fetch_unit(unit, self._output, self._attempt, self._fetch, self._image_config, self._store)
        yield from account.kept
        for row in account.rejected:
            yield beam.pvalue.TaggedOutput(self.REJECTED, row)


def fetch_unit(
    unit: Unit, output: str, attempt: int, fetch: FetchConfig, image_config: ImageConfig, store: StoreConfig
) -> UnitResult:
    """Does what is missing of a unit at this attempt, the first being 1.

    The first attempt fetches all pairs into shard `unit.number`; each later one fetches those that failed for a
    passing reason until then, into a shard `unit.of` further on, if there are any. Finished shards are left alone.
    """
    rows: dict[str, dict] = {}
    for before in range(attempt):
        number = unit.number + before * unit.of
        pairs = [pair for pair in unit.pairs if before == 0 or rows[pair.key]["reason"] in TRANSIENT_REASONS]
        if before > 0 and not pairs:
            break
        found = {row["pair_key"]: row for row in read_metadata(output, number)}
        if not _is_finished(output, number) or found.keys() != {pair.key for pair in pairs}:
            _fetch_shard(number, pairs, found, output, fetch, image_config, store)
            found = {row["pair_key"]: row for row in read_metadata(output, number)}
        rows |= found
    return _account(unit, rows)


def _is_finished(output: str, number: int) -> bool:
    return files.exists(files.join(output, f"{number:05d}_stats.json"))


def _fetch_shard(
    number: int,
    pairs: list[Pair],
    rows: dict[str, dict],
    output: str,
    fetch: FetchConfig,
    image_config: ImageConfig,
    store: StoreConfig,
) -> None:
    """Writes one shard of these pairs. `rows` is what the metadata of an earlier, killed run says.

    Each of its three files is whole but may be older or newer than the next: what the tar holds is done, whatever the
    rows say.
    """
    with ShardWriter(output, number, pairs, store) as writer:
        missing = {pair.key: pair for pair in pairs}
        for image in read_fetched(output, number):
            if missing.pop(image.metadata["pair_key"], None):
                writer.add_stored(image.metadata, image.data, image.suffix)
        for key in missing.keys() & rows.keys():
            if rows[key]["status"] != "success" and rows[key]["reason"] not in TRANSIENT_REASONS:
                writer.add(_rejected(rows[key]))
                del missing[key]
        tally, began = DownloadStats(), time.monotonic()
        for outcome in fetch_images(missing.values(), fetch, image_config, store.resize or 1, tally):
            writer.add(outcome)
            del outcome  # else it would be held until the next one has come, and its memory given to others
        if _is_finished(output, number):  # by other pairs
            files.delete(output, [f"{number:05d}_stats.json"])
        writer.write()
    said = {
        "outcomes": tally.outcomes,
        "bytes": tally.bytes,
        "seconds": time.monotonic() - began,
        "host_s": dict(tally.host_s.most_common(SLOWEST_HOSTS)),
    }
    files.write_atomically(files.join(output, WORK_FOLDER, FETCHED_FOLDER, f"{number:05d}.json"), to_json(said))


def _account(unit: Unit, rows: dict[str, dict]) -> UnitResult:
    kept = [pair for pair in unit.pairs if rows[pair.key]["status"] == "success"]
    rejected = [_rejected(rows[pair.key]) for pair in unit.pairs if rows[pair.key]["status"] != "success"]
    return UnitResult(unit.number, kept, rejected)


def _rejected(row: dict) -> Rejected:
    detail = (row["error_message"] or "").partition(": ")[2]
    return Rejected(
        row["pair_key"], row["source"], row["file"], row["row"], row["url"], Stage.FETCH.value, row["reason"], detail
    )


def count_transient_failures(output: str) -> int:
    """How many rows of a finished output failed for a reason that may be gone by now."""
    passing = {reason.value for reason in TRANSIENT_REASONS}
    rejected = (account["rejected"].get(Stage.FETCH.value, {}) for account in read_ledger(output)["sources"].values())
    return sum(number for reasons in rejected for reason, number in reasons.items() if reason in passing)


# --- attempts --------------------------------------------------------------------------------------------------------


def read_attempt(output: str) -> int:
    """How many runs have begun: the first attempt fetches all, each later one what failed for a passing reason."""
    path = files.join(output, ATTEMPTS_FILE)
    return json.loads(files.read(path))["attempts"] if files.exists(path) else 1


def write_attempt(output: str, attempt: int) -> None:
    files.write_atomically(files.join(output, ATTEMPTS_FILE), to_json({"attempts": attempt}))


def finish_fetch(output: str, settings: dict[str, Any], counts: list[Count], rejects: list[WrittenFile]) -> None:
    """The same for the pictures; the counts include those of the selection."""
    account = ledger.build_ledger(counts, [])
    remove_stale_files(output, ("rejects",), {file.path for file in rejects})
    write_settings(output, settings)
    ledger.write_ledger(output, account)
