"""Units of pairs to records, for build: in one step, or fetched in one and encoded in another, on other workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import apache_beam as beam
from apache_beam.coders import RowCoder, registry
from apache_beam.transforms.window import GlobalWindows

from models.errors import UserError
from pipeline.fetch.costs import costs
from pipeline.fetch.download import FetchConfig
from pipeline.fetch.fetcher import fetch_images
from pipeline.fetch.process_setup import configure_process
from pipeline.fetch.slots import Activity
from pipeline.fetch.units import Unit
from pipeline.fetch.units_in_flight import UnitsInFlight
from pipeline.images.fetched import FetchedImage
from pipeline.images.prepared_images import prepared_path, read_prepared, write_prepared
from pipeline.images.validate import ImageConfig
from pipeline.output import files
from pipeline.output.counts import Counts, Step, counts_of
from pipeline.output.work_folder import CompletedUnits, add_outcomes, pending_pairs
from pipeline.records import KEY_BYTES, REJECTED_TAG, EncodedPair, Pair, Rejected
from pipeline.scores.image_filter import ImageFilterConfig, SharedFilter
from pipeline.tokenize_stage import EncodeConfig, EncodingDoFn, UnitProgress, prepare_each


@dataclasses.dataclass(frozen=True)
class UnitJob:
    """What the steps from a unit to its records share."""

    output: str  # which records the units that are finished
    fetch: FetchConfig
    image: ImageConfig
    encode: EncodeConfig
    image_size: int  # side in px of what the image tokenizer sees
    image_filter: ImageFilterConfig | None = None  # checks uncropped images, so that it goes with the downloads


class EncodeUnits(beam.PTransform):
    """Units -> their records, and rejects under their tag. This class decides where images go from the network to the
    model: within one process; or, if `hints` name what the model's workers need, by the work folder to those, so that
    downloads hold no GPU. Hints are Beam's resource hints (`accelerator`, `min_ram`); both ways give the same records.
    """

    def __init__(self, job: UnitJob, hints: Mapping[str, str]):
        self._job, self._hints = job, hints

    @property
    def fetching_step(self) -> Step:
        """The step that the units are planned for."""
        return Step.FETCH if self._hints else Step.FETCH_AND_ENCODE

    def expand(self, units):
        if not self._hints:
            at_once = beam.ParDo(FetchAndEncode(self._job))
            return units | "At once" >> at_once.with_outputs(REJECTED_TAG, main="records")
        fetch = beam.ParDo(FetchPrepared(self._job))
        encode = beam.ParDo(EncodePrepared(self._job.output, self._job.encode))
        encode.with_resource_hints(**self._hints)
        return (
            units
            | "Fetch" >> fetch.with_output_types(PreparedUnit)
            | "Spread" >> beam.Reshuffle()
            | "Encode" >> encode.with_outputs(REJECTED_TAG, main="records")
        )


class FetchAndEncode(EncodingDoFn):
    """Unit -> its records; of an image, only the codes are stored. The output records which units are finished."""

    STEP = Step.FETCH_AND_ENCODE

    def __init__(self, job: UnitJob):
        super().__init__(job.output, job.encode, job.image_filter)
        self._job = job

    def process(self, unit: Unit):
        yield from self._finish(unit.name, unit.pairs, self._fetched)

    def _fetched(self, pairs: list[Pair]) -> Iterator[FetchedImage | Rejected]:
        return count_fetched(fetch_images(pairs, self._job.fetch, self._job.image), counts_of(self._job.output))


def count_fetched(
    outcomes: Iterable[FetchedImage | Rejected], counts: Counts, step: Step | None = None
) -> Iterator[FetchedImage | Rejected]:
    """Passes outcomes of downloads on, and counts them, by their reasons and as done in a step."""
    for outcome in outcomes:
        counts.fetched(outcome.reason if isinstance(outcome, Rejected) else None)
        costs.count(counts)
        if step:
            counts.step(step, done=1)
        yield outcome
        del outcome  # else this name would hold its memory until the next outcome arrives


class PreparedUnit(NamedTuple):
    """Refers to a unit whose images lie in the work folder."""

    name: str
    path: str  # of its prepared images; "" if an earlier run has encoded all of them
    keys: bytes  # of its pairs, KEY_BYTES each, in order


registry.register_coder(PreparedUnit, RowCoder)


class FetchPrepared(beam.DoFn):
    """Unit -> a reference to its prepared images, which it writes to the work folder."""

    def __init__(self, job: UnitJob):
        self._job = job
        self._store, self._filtering = CompletedUnits(job.output), SharedFilter(job.image_filter, job.output)

    def setup(self) -> None:
        configure_process()
        self._filter = self._filtering.load()

    def start_bundle(self) -> None:
        self._units: UnitsInFlight[PreparedUnit] = UnitsInFlight(self._job.fetch.connections)

    def process(self, unit: Unit):
        yield from self._units.start(lambda activity: self._prepared(unit, activity))

    def finish_bundle(self):
        yield from map(GlobalWindows.windowed_value, self._units.finish())
        counts_of(self._job.output).add({})  # metrics wait for a call of the bundle's own thread

    def _prepared(self, unit: Unit, activity: Activity) -> PreparedUnit:
        keys = bytes.fromhex("".join(pair.key for pair in unit.pairs))
        _, _, pending = pending_pairs(unit.name, unit.pairs, self._store)
        path = prepared_path(self._job.output, unit.name, pending) if pending else ""
        counts = counts_of(self._job.output)
        if not pending or files.exists(path):
            counts.step(Step.FETCH, before=len(unit.pairs))
            return PreparedUnit(unit.name, path, keys)
        counts.step(Step.FETCH, before=len(unit.pairs) - len(pending))
        fetched = fetch_images(pending, self._job.fetch, self._job.image, activity=activity)
        counted = count_fetched(fetched, counts, Step.FETCH)
        write_prepared(path, prepare_each(self._filter(counted), self._job.image_size, self._job.encode))
        return PreparedUnit(unit.name, path, keys)


class EncodePrepared(EncodingDoFn):
    """A unit's prepared images -> its records; the images are deleted once these are stored."""

    STEP = Step.ENCODE_PREPARED

    def process(self, unit: PreparedUnit):
        wanted = {unit.keys[at : at + KEY_BYTES].hex() for at in range(0, len(unit.keys), KEY_BYTES)}
        progress = UnitProgress(self._output, self.STEP, len(wanted))
        if unit.path and files.exists(unit.path):  # else an earlier attempt has encoded them
            self._encode(unit, progress)
        progress.finish()
        records, rejects = self._store.load(unit.name)
        if missing := wanted - {row.key for row in (*records, *rejects)}:
            raise UserError(
                f"{unit.path or unit.name}: {len(missing)} images that were fetched are not there any more; run the "
                "same command again"
            )
        yield from (record for record in records if record.key in wanted)
        for row in rejects:
            if row.key in wanted:
                yield beam.pvalue.TaggedOutput(REJECTED_TAG, row)

    def _encode(self, unit: PreparedUnit, progress: UnitProgress) -> None:
        """Stores the outcomes of the prepared images, with those of earlier runs, and deletes the images."""
        encoded = self._encoder.encode_prepared(read_prepared(unit.path), progress.timer)
        fresh: list[EncodedPair | Rejected] = list(progress.count(encoded))
        keys = {row.key for row in fresh}
        records, rejects = ([row for row in rows if row.key not in keys] for rows in self._store.load(unit.name))
        add_outcomes(fresh, records, rejects)
        self._store.save(unit.name, records, rejects)
        files.remove(unit.path)
