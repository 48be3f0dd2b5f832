"""Units of work: pairs that are fetched together and, once done, not again after an interruption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa

from pipeline.output import schemas
from pipeline.output.counts import Step, counts_of
from pipeline.output.grouping import key_hash
from pipeline.output.parts import Part
from pipeline.output.progress import count_finished, write_plan
from pipeline.output.spill import HASH, MIN_RANGES, HashRange, HashRanges, Spill, SpillFile, read_spilled, rows_as
from pipeline.records import Pair
from pipeline.sources.stored_images import location_hash


class Unit(NamedTuple):
    """The pairs whose `unit_hash` falls to this number, sorted by key."""

    number: int
    total: int  # units of the job
    pairs: Sequence[Pair]

    @property
    def name(self) -> str:
        return f"{self.number:05d}-of-{self.total:05d}"


UNITS_PER_RANGE = 16
"""Units that one worker takes at a time, of a job that has many."""


class GroupIntoUnits(beam.PTransform):
    """Pairs -> units of about `pairs_per_unit`. The one shuffle before fetching: it moves rows, not images, and hashing
    mixes the hosts, whatever the order of the source. `step` and `attempt` are for the progress line."""

    def __init__(self, pairs_per_unit: int, output: str, step: Step = Step.FETCH, attempt: int = 1):
        self._pairs_per_unit, self._output, self._step, self._attempt = pairs_per_unit, output, step, attempt

    def expand(self, pairs):
        spills = pairs | "Spill" >> Spill(self._output, schemas.PAIRS, unit_hash)
        planned = (
            spills
            | "Pairs" >> beam.Map(lambda spill: spill.rows).with_output_types(int)
            | "All pairs" >> beam.CombineGlobally(sum)
            | "Plan" >> beam.Map(plan_units, self._pairs_per_unit, self._output, self._step, self._attempt)
        )
        return (
            spills
            | "Ranges" >> HashRanges(self._pairs_per_unit, UNITS_PER_RANGE)
            | "Read"
            >> beam.FlatMap(
                read_units, beam.pvalue.AsList(spills), beam.pvalue.AsSingleton(planned), self._output
            ).with_output_types(Unit)
        )


class GroupIntoUnitsOfPart(beam.PTransform):
    """(pairs, numbers of pairs, whose sum is that of all) -> the units of one part of a job, the same as
    `GroupIntoUnits` makes. Only the pairs of these units are spilled."""

    def __init__(self, pairs_per_unit: int, output: str, part: Part, step: Step = Step.FETCH, attempt: int = 1):
        self._pairs_per_unit, self._output, self._part = pairs_per_unit, output, part
        self._step, self._attempt = step, attempt

    def expand(self, inputs):
        pairs, numbers = inputs
        planned = (
            numbers
            | "All pairs" >> beam.CombineGlobally(sum)
            | "Plan" >> beam.Map(plan_units, self._pairs_per_unit, self._output, self._step, self._attempt)
        )
        spills = (
            pairs
            | "Of the part"
            >> beam.Filter(is_in_part, beam.pvalue.AsSingleton(planned), self._part).with_output_types(Pair)
            | "Spill" >> Spill(self._output, schemas.PAIRS, unit_hash)
        )
        return (
            planned
            | "Ranges" >> beam.FlatMap(unit_ranges, self._part).with_output_types(HashRange)
            | "Spread" >> beam.Reshuffle()
            | "Read"
            >> beam.FlatMap(
                read_units, beam.pvalue.AsList(spills), beam.pvalue.AsSingleton(planned), self._output
            ).with_output_types(Unit)
        )


def is_in_part(pair: Pair, planned: int, part: Part) -> bool:
    """Whether a pair belongs to a unit of the part; `planned` is the number of all units."""
    return unit_hash(pair) * planned >> 64 in part.share(planned)


def unit_ranges(planned: int, part: Part) -> list[HashRange]:
    """The part's units, as ranges that one worker takes at a time."""
    units = part.share(planned)
    step = max(1, min(UNITS_PER_RANGE, len(units) // MIN_RANGES))
    return [HashRange(first, min(first + step, units.stop), planned) for first in units[::step]]


def read_units(hashes: HashRange, spills: list[SpillFile], planned: int, output: str) -> Iterator[Unit]:
    """The units of a range. `planned` is their number in all; it makes the plan precede the first unit."""
    table = read_spilled(output, spills, schemas.PAIRS, *hashes.bounds)
    numbers = [value * planned >> 64 for value in table[HASH].to_pylist()]
    for number in range(hashes.first, hashes.stop):
        rows = table.filter(pa.array([of == number for of in numbers], pa.bool_()))
        yield Unit(number, planned, sorted(rows_as(Pair, rows), key=lambda pair: pair.key))


def count_read(pair: Pair, output: str) -> Pair:
    """Passes a pair on, and counts it as read for the progress line."""
    counts_of(output).step(Step.READ, done=1)
    return pair


def unit_hash(pair: Pair) -> int:
    """Hash of the key or, for an image stored in a source's file, of its location: few units then read one file."""
    return location_hash(pair.stored_at) if pair.stored_at else key_hash(pair)


def plan_units(pairs: int, pairs_per_unit: int, output: str, step: Step, attempt: int) -> int:
    """The number of units. Also records them, and how many are finished already, for the progress line."""
    units = max(1, -(-pairs // pairs_per_unit))
    write_plan(output, step, pairs, pairs * count_finished(output, units, attempt) // units)
    return units
