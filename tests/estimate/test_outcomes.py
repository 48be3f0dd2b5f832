"""From the rows of a sample to all rows: shares, repetitions that a sample does not meet, and what is uncertain."""

from __future__ import annotations

import random

import pytest

from pipeline.estimate.outcomes import ROWS_PER_BLOCK, Outcome, Population, project
from pipeline.estimate.quantity import exactly, range_of


def outcome(row: int, stage: str = "", instead: str = "", file: str = "f") -> Outcome:
    return Outcome(
        source="cc3m",
        file=file,
        block=row // ROWS_PER_BLOCK,
        key=f"{file}{row}",
        url="http://h/",
        stage=stage,
        instead=instead,
    )


def test_a_whole_sample_is_exact():
    outcomes = [outcome(row, "" if row % 4 else "select") for row in range(400)]
    totals = project(outcomes, [Population(exactly(400), 400)])
    assert [range_of(each) for each in totals] == [(400, 400, 400), (300, 300, 300), (300, 300, 300)]


def test_a_share_of_the_rows_stands_for_all():
    outcomes = [outcome(row, random.Random(row).choice(["", "", "select", "fetch"])) for row in range(2000)]
    totals = project(outcomes, [Population(exactly(200_000), 2000)])
    kept = range_of(totals.kept)
    assert kept.low < 100_000 < kept.high and kept.high - kept.low < 12_000
    assert range_of(totals.selected).value == pytest.approx(150_000, rel=0.05)


def test_populations_are_weighted_by_their_own_rows():
    few = [outcome(row, file="few") for row in range(100)]
    many = [outcome(row, "select" if row % 2 else "", file="many") for row in range(100)]
    populations = [
        Population(exactly(100), 100, frozenset({("cc3m", "few")})),
        Population(exactly(10_000), 100, frozenset({("cc3m", "many")})),
    ]
    assert project([*few, *many], populations).kept[0] == 100 + 5_000


@pytest.mark.parametrize("distance", [1, 5000])
def test_repetitions_far_apart_are_met_by_chance_and_those_together_always(distance):
    """A list in which every URL is there twice, `distance` rows apart; a quarter of its blocks is read."""
    rows, chosen = 20_000, set(random.Random(0).sample(range(400), 100))
    kept: set[int] = set()
    outcomes = []
    for row in (row for row in range(rows) if row // ROWS_PER_BLOCK in chosen):
        if row // distance % 2 and row - distance in kept:
            outcomes.append(outcome(row, "select", f"f{row - distance}"))
        else:
            outcomes.append(outcome(row))
            kept.add(row)
    totals = project(outcomes, [Population(exactly(rows), len(outcomes))])
    assert totals.kept[0] == pytest.approx(rows / 2, rel=0.1)
