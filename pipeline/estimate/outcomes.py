"""What became of the rows of a sample: read from the output that a job made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.data.format import INDEX_FOLDER
from pipeline.estimate.quantity import Array, bootstrap
from pipeline.output import files, parquet
from pipeline.output.names import PAIRS_FOLDER, REJECTS_FOLDER, SCORES_FOLDER
from pipeline.records import Reason, Stage, key_kept_instead

ROWS_PER_BLOCK = 50
"""Rows that stand together in a file count as one unit of the sample: their hosts and captions are alike."""
DUPLICATES = {Reason.DUPLICATE_URL.value, Reason.DUPLICATE_PAIR.value, Reason.DUPLICATE_IMAGE.value}
COLUMNS = ["key", "source", "file", "row", "url"]


class Outcome(NamedTuple):
    """What became of one row."""

    source: str
    file: str
    block: int
    key: str
    url: str
    stage: str = ""  # at which it was rejected; empty: it was kept
    instead: str = ""  # the key of the pair that it duplicates


def read_outcomes(output: str) -> list[Outcome]:
    """The outcomes of a finished, local output of a job."""
    kept = [row for folder in (INDEX_FOLDER, PAIRS_FOLDER) for row in _rows(output, folder, COLUMNS)]
    kept += _fetched(output)
    scored = _rows(output, SCORES_FOLDER, ["key"])
    kept += [row | {"source": "", "file": "", "row": number, "url": ""} for number, row in enumerate(scored)]
    rejected = _rows(output, REJECTS_FOLDER, [*COLUMNS, "stage", "reason", "detail"])
    return [*(_outcome(row) for row in kept), *(_outcome(row) for row in rejected)]


def _rows(output: str, folder: str, columns: list[str]) -> list[dict[str, Any]]:
    return [row for path in parquet.files_in(output, folder) for row in parquet.read_columns(path, columns).to_pylist()]


def _fetched(output: str) -> Iterator[dict[str, Any]]:
    """The rows of images that are there, from the tables of `fetch`."""
    for name in files.list_files(output):
        if re.fullmatch(r"\d+\.parquet", name):
            table = parquet.read_columns(files.join(output, name), ["pair_key", *COLUMNS[1:], "status"])
            yield from (row | {"key": row["pair_key"]} for row in table.to_pylist() if row["status"] == "success")


def _outcome(row: dict[str, Any]) -> Outcome:
    is_duplicate = row.get("reason") in DUPLICATES
    return Outcome(
        source=row["source"],
        file=row["file"],
        block=row["row"] // ROWS_PER_BLOCK,
        key=row["key"],
        url=row["url"],
        stage=row.get("stage", ""),
        instead=key_kept_instead(row["detail"]) if is_duplicate else "",
    )


class Population(NamedTuple):
    """Rows of which the sample is a part."""

    rows: Array
    sampled: int
    files: frozenset[tuple[str, str]] = frozenset()  # source and name; empty: any

    @property
    def share(self) -> float:
        """The part of the rows that the sample has."""
        return min(1.0, self.sampled / self.rows[0]) if self.rows[0] else 1.0


class Counted(NamedTuple):
    """What the rows of the sample became."""

    rows: int
    selected: int  # pairs after select
    kept: int


def count(outcomes: Sequence[Outcome]) -> Counted:
    selected = sum(outcome.stage != Stage.SELECT.value for outcome in outcomes)
    return Counted(len(outcomes), selected, sum(not outcome.stage for outcome in outcomes))


class Totals(NamedTuple):
    """What all rows will become."""

    rows: Array
    selected: Array  # pairs after select
    kept: Array


def project(outcomes: Sequence[Outcome], populations: Sequence[Population]) -> Totals:
    """The totals of all rows from the outcomes of the sample.

    Of repeated rows that are far apart, a sample of the share q meets q^2 of the repetitions but q of the rows: what it
    misses of them is subtracted. Those within a block, and the next one, are met together.
    """
    homes = [_home(outcome, populations) for outcome in outcomes]
    blocks = {outcome.key: (home, outcome.block) for outcome, home in zip(outcomes, homes, strict=True)}
    parts = []
    for number, population in enumerate(populations):
        own = [outcome for outcome, home in zip(outcomes, homes, strict=True) if home == number]
        missed = [_missed(outcome, blocks, populations) for outcome in own]
        shares = _shares(own, missed, population.share, number)
        parts.append(np.column_stack([population.rows, shares * population.rows[:, None]]))
    total = np.sum(parts, axis=0)
    sample = count(outcomes)
    return Totals(total[:, 0], np.maximum(total[:, 1], sample.selected), np.maximum(total[:, 2], sample.kept))


def _home(outcome: Outcome, populations: Sequence[Population]) -> int:
    """The number of the population that a row belongs to."""
    found = (
        number
        for number, population in enumerate(populations)
        if not population.files or (outcome.source, outcome.file) in population.files
    )
    return next(found, 0)


def _missed(outcome: Outcome, blocks: dict[str, tuple[int, int]], populations: Sequence[Population]) -> float:
    """How many more repetitions like this row there are, for each one that the sample would show if it were whole."""
    if outcome.instead not in blocks:
        return 0.0
    home, block = blocks[outcome.instead]
    is_near = blocks[outcome.key][0] == home and abs(block - outcome.block) <= 1
    return 0.0 if is_near else 1 / populations[home].share - 1


def _shares(outcomes: Sequence[Outcome], missed: Sequence[float], share: float, seed: int) -> np.ndarray:
    """The shares of selected and of kept rows, [1 + DRAWS, 2]."""
    names = sorted({(outcome.file, outcome.block) for outcome in outcomes})
    place = {name: number for number, name in enumerate(names)}
    sums = np.zeros((len(names), 3))  # rows, selected, kept
    for outcome, more in zip(outcomes, missed, strict=True):
        in_select = outcome.stage == Stage.SELECT.value
        selected = float(not in_select) - more * in_select
        sums[place[outcome.file, outcome.block]] += (1, selected, float(not outcome.stage) - more)

    def shares(weights: np.ndarray) -> np.ndarray:
        rows, selected, kept = weights @ sums if len(sums) else np.zeros(3)
        return np.array([selected, kept]) / max(rows, 1)

    return bootstrap(len(names), share, shares, seed + 1)
