"""Units of work: pairs that are fetched together and, once done, not again after an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apache_beam as beam

from pipeline.output.grouping import grouped_by_hash, key_hash
from pipeline.output.progress import Step, count_finished, counts_of, write_plan
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


class GroupIntoUnits(beam.PTransform):
    """Pairs -> units of about `pairs_per_unit`. The one shuffle before fetching: it moves rows, not images, and hashing
    mixes the hosts, whatever the order of the source. `step` and `attempt` are for the progress line."""

    def __init__(self, pairs_per_unit: int, output: str, step: Step = Step.FETCH, attempt: int = 1):
        self._pairs_per_unit, self._output, self._step, self._attempt = pairs_per_unit, output, step, attempt

    def expand(self, pairs):
        number = (
            pairs
            | "Count" >> beam.combiners.Count.Globally()
            | "Plan" >> beam.Map(plan_units, self._pairs_per_unit, self._output, self._step, self._attempt)
        )
        return grouped_by_hash(pairs, number, unit_hash) | "Sort" >> beam.Map(
            to_unit, beam.pvalue.AsSingleton(number)
        ).with_output_types(Unit)


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


def to_unit(group: tuple[int, Iterable[Pair]], total: int) -> Unit:
    return Unit(group[0], total, sorted(group[1], key=lambda pair: pair.key))
