"""Pairs to images on disk, unit by unit, in img2dataset's layout."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from models.errors import UserError
from pipeline.fetch.costs import costs
from pipeline.fetch.download import FetchConfig
from pipeline.fetch.fetcher import fetch_converted
from pipeline.fetch.process_setup import configure_process
from pipeline.fetch.slots import Activity
from pipeline.fetch.units import Unit
from pipeline.fetch.units_in_flight import UnitsInFlight
from pipeline.images import shard_attempt
from pipeline.images.shard_format import read_metadata, rejected_of
from pipeline.images.shard_reader import read_fetched
from pipeline.images.shard_writer import ShardWriter, StoreConfig, to_member
from pipeline.images.validate import ImageConfig
from pipeline.output import files, ledger
from pipeline.output.counts import Step, counts_of
from pipeline.output.files import WrittenFile, to_json
from pipeline.output.finish import remove_stale_files, write_settings
from pipeline.output.ledger import Count, read_ledger
from pipeline.output.names import ATTEMPTS_FILE, REJECTS_FOLDER, SETTINGS_FILE, WORK_FOLDER
from pipeline.records import REJECTED_TAG, TRANSIENT_REASONS, Pair, Rejected, Stage


class UnitResult(NamedTuple):
    """Result of fetching one unit: its fetched pairs and its rejected rows."""

    number: int
    kept: list[Pair]
    rejected: list[Rejected]


class FetchUnit(beam.DoFn):
    """Unit -> its fetched pairs, and its rejects under their tag; writes the unit's tar, Parquet and statistics."""

    def __init__(self, output: str, attempt: int, fetch: FetchConfig, image_config: ImageConfig, store: StoreConfig):
        self._output, self._attempt, self._fetch = output, attempt, fetch
        self._image_config, self._store = image_config, store

    def setup(self) -> None:
        configure_process()

    def start_bundle(self) -> None:
        self._units: UnitsInFlight[UnitResult] = UnitsInFlight(self._fetch.connections)

    def process(self, unit: Unit):
        fetch = partial(fetch_unit, unit, self._output, self._attempt, self._fetch, self._image_config, self._store)
        for result in self._units.start(fetch):
            yield from result.kept
            for row in result.rejected:
                yield beam.pvalue.TaggedOutput(REJECTED_TAG, row)

    def finish_bundle(self):
        for result in self._units.finish():
            yield from map(GlobalWindows.windowed_value, result.kept)
            for row in result.rejected:
                yield beam.pvalue.TaggedOutput(REJECTED_TAG, GlobalWindows.windowed_value(row))
        counts_of(self._output).add({})  # metrics wait for a call of the bundle's own thread


def fetch_unit(
    unit: Unit,
    output: str,
    attempt: int,
    fetch: FetchConfig,
    image_config: ImageConfig,
    store: StoreConfig,
    activity: Activity | None = None,
) -> UnitResult:
    """Completes a unit up to this attempt, counted from 1.

    The first attempt fetches all pairs into shard `unit.number`. Each later one fetches the pairs whose last failure
    was transient, if there are any, into the shard whose number is `unit.total` larger. Finished shards stay unchanged.
    """
    rows: dict[str, dict] = {}
    fetched = 0
    for before in range(attempt):
        number = unit.number + before * unit.total
        pairs = [pair for pair in unit.pairs if before == 0 or rows[pair.key]["reason"] in TRANSIENT_REASONS]
        if before > 0 and not pairs:
            break
        if not _has_shard(output, number, pairs):
            fetched += _fetch_shard(number, pairs, output, fetch, image_config, store, activity)
        rows |= _rows_of(output, number)
    counts_of(output).step(Step.FETCH, before=max(0, len(unit.pairs) - fetched))
    return _result(unit, rows)


def _has_shard(output: str, number: int, pairs: list[Pair]) -> bool:
    """Whether a shard of these pairs is there; completes one that was being published when its run was killed."""
    return shard_attempt.is_finished(output, number, pairs) or shard_attempt.publish_decided(output, number, pairs)


def _rows_of(output: str, number: int) -> dict[str, dict]:
    """Pair key -> the row of metadata, of a shard; empty if it is not there."""
    return {row["pair_key"]: row for row in read_metadata(output, number)}


def _fetch_shard(
    number: int,
    pairs: list[Pair],
    output: str,
    fetch: FetchConfig,
    image_config: ImageConfig,
    store: StoreConfig,
    activity: Activity | None,
) -> int:
    """Writes one shard of these pairs; returns how many were fetched.

    An earlier run may have left a shard of this number: of other pairs, or one whose files are of different attempts.
    An image in its tar is fetched, whatever its rows state.
    """
    rows = _rows_of(output, number)
    with ShardWriter(output, number, pairs) as writer:
        missing = {pair.key: pair for pair in pairs}
        for image in read_fetched(output, number):
            if missing.pop(image.metadata["pair_key"], None):
                writer.add_stored(image.metadata, image.data, image.suffix)
        for key in missing.keys() & rows.keys():
            if rows[key]["status"] != "success" and rows[key]["reason"] not in TRANSIENT_REASONS:
                writer.add(rejected_of(rows[key]))
                del missing[key]
        counts = counts_of(output)
        convert = partial(to_member, config=store)
        for outcome in fetch_converted(missing.values(), fetch, image_config, convert, store.resize or 1, activity):
            writer.add(outcome)
            counts.fetched(outcome.reason if isinstance(outcome, Rejected) else None)
            counts.step(Step.FETCH, done=1)
            costs.count(counts)
            del outcome  # else this name would hold its memory until the next outcome arrives
        writer.write()
    return len(missing)


def _result(unit: Unit, rows: dict[str, dict]) -> UnitResult:
    kept = [pair for pair in unit.pairs if rows[pair.key]["status"] == "success"]
    rejected = [rejected_of(rows[pair.key]) for pair in unit.pairs if rows[pair.key]["status"] != "success"]
    return UnitResult(unit.number, kept, rejected)


def count_transient_failures(output: str) -> int:
    """The number of rows of a finished output that failed for a transient reason."""
    transient = {reason.value for reason in TRANSIENT_REASONS}
    rejected = (counts["rejected"].get(Stage.FETCH.value, {}) for counts in read_ledger(output)["sources"].values())
    return sum(number for reasons in rejected for reason, number in reasons.items() if reason in transient)


# --- attempts --------------------------------------------------------------------------------------------------------


def read_attempt(output: str) -> int:
    """The number of runs so far. The first fetches all rows, each later one those whose failure was transient."""
    path = files.join(output, ATTEMPTS_FILE)
    return json.loads(files.read(path))["attempts"] if files.exists(path) else 1


def write_attempt(output: str, attempt: int) -> None:
    files.write_atomically(files.join(output, ATTEMPTS_FILE), to_json({"attempts": attempt}))


def finish_fetch(output: str, settings: dict[str, Any], counts: list[Count], rejects: list[WrittenFile]) -> None:
    """Writes the settings and the ledger of a finished output. The counts include those of select. Raises UserError for
    an output that was deleted meanwhile: its first units are gone, though the last ones are there."""
    if not files.exists(files.join(output, WORK_FOLDER, SETTINGS_FILE)):
        raise UserError(f"--output {output}: was deleted while the job ran; delete what is there, and run it again")
    totals = ledger.build_ledger(counts, [])
    remove_stale_files(output, (REJECTS_FOLDER,), {file.path for file in rejects})
    write_settings(output, settings)
    ledger.write_ledger(output, totals)
