"""What balancing has changed: head and tail of the groups before and after, as the ledger and its tables show it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.ledger import BalanceReport, Groups

ALL_PAIRS = ""
"""In place of a group's name: all pairs, each counted once."""
LARGEST = 20
"""Groups that the report names."""
SIZES = 12
"""Powers of ten by which groups are counted: those of 1 to 9 pairs, of 10 to 99, and so on."""


class PartialReport(NamedTuple):
    """The report on some of the groups."""

    all_pairs: tuple[int, ...]  # before, after
    head: tuple[int, ...]  # groups above the limit; their pairs before, after
    tail: tuple[int, ...]
    sizes_before: tuple[int, ...]  # groups by powers of ten of their pairs [SIZES]
    sizes_after: tuple[int, ...]
    largest: tuple[tuple[str, int, int], ...]  # name and pairs, the largest before first, at most LARGEST


def partial_report(sums: pa.Table, limit: int) -> PartialReport:
    """The report on rows of name, before and after; the row ALL_PAIRS is no group."""
    is_group = pc.not_equal(sums["name"], ALL_PAIRS)
    groups, whole = sums.filter(is_group), sums.filter(pc.invert(is_group))
    before, after = (groups[name].to_numpy() for name in ("before", "after"))
    is_head = before > limit
    rows = zip(groups["name"].to_pylist(), before.tolist(), after.tolist(), strict=True)
    return PartialReport(
        all_pairs=(_sum(whole["before"].to_numpy()), _sum(whole["after"].to_numpy())),
        head=_totals(before[is_head], after[is_head]),
        tail=_totals(before[~is_head], after[~is_head]),
        sizes_before=_sizes(before),
        sizes_after=_sizes(after),
        largest=_largest(rows),
    )


def _sum(numbers: np.ndarray) -> int:
    return int(numbers.sum())


def _totals(before: np.ndarray, after: np.ndarray) -> tuple[int, ...]:
    return len(before), _sum(before), _sum(after)


def _sizes(pairs: np.ndarray) -> tuple[int, ...]:
    powers = np.searchsorted(10 ** np.arange(1, SIZES), pairs[pairs > 0], side="right")
    return tuple(np.bincount(powers, minlength=SIZES).tolist())


def _largest(rows: Iterable[tuple[str, int, int]]) -> tuple[tuple[str, int, int], ...]:
    return tuple(heapq.nsmallest(LARGEST, rows, key=lambda row: (-row[1], row[0])))


def merge_reports(parts: Sequence[PartialReport]) -> PartialReport:
    """The report on all groups, from those on one part of them each; one at least."""

    def total(numbers: Callable[[PartialReport], tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(map(sum, zip(*map(numbers, parts), strict=True)))

    return PartialReport(
        all_pairs=total(lambda part: part.all_pairs),
        head=total(lambda part: part.head),
        tail=total(lambda part: part.tail),
        sizes_before=total(lambda part: part.sizes_before),
        sizes_after=total(lambda part: part.sizes_after),
        largest=_largest(row for part in parts for row in part.largest),
    )


def report_json(report: PartialReport, by: str, limit: int) -> BalanceReport:
    """The report as the ledger holds it."""
    before, after = report.all_pairs
    sizes = enumerate(zip(report.sizes_before, report.sizes_after, strict=True), 1)
    return {
        "by": by,
        "limit": limit,
        "pairs": {"before": before, "after": after},
        "head": _groups(report.head),
        "tail": _groups(report.tail),
        "sizes": [
            {"to": 10**power - 1, "before": before, "after": after}
            for power, (before, after) in sizes
            if before or after
        ],
        "largest": [{"name": name, "before": before, "after": after} for name, before, after in report.largest],
    }


def _groups(totals: tuple[int, ...]) -> Groups:
    number, before, after = totals
    return {"groups": number, "before": before, "after": after}
