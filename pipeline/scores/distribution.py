"""How the numbers of a score are distributed, and which pairs show what a number means."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.scores.lookup import numbers_of
from pipeline.scores.score_files import Scores

QUANTILES = {"min": 0, "p1": 1, "p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95, "p99": 99, "max": 100}
DISTRIBUTION_BINS = 28
TAILS = (0.5, 99.5)  # percentiles between which bins are equally wide; the outermost ones reach to the ends
EXAMPLES = 6  # pairs of a strip
STEPS = (5, 25, 50, 75, 95)  # percentiles that have a strip


class Distribution(NamedTuple):
    """A score over all pairs."""

    pairs: int
    missing: int  # pairs without the score
    quantiles: dict[str, float]  # and the mean; empty if no pair has the score
    edges: list[float]  # of the histogram's bins, one more than counts
    counts: list[int]

    def to_json(self) -> dict[str, Any]:
        histogram = {"edges": self.edges, "counts": self.counts}
        return {
            "pairs": self.pairs,
            "missing": self.missing,
            "quantiles": self.quantiles,
            "histogram": histogram,
        }


def read_numbers(scores: Scores, name: str) -> np.ndarray:
    """A score of all pairs in the order of their keys, float32 [P]; NaN where a pair has none."""
    return np.concatenate([np.empty(0, np.float32), *numbers_of(scores, name)])


def distribution(numbers_P: np.ndarray) -> Distribution:
    known = numbers_P[np.isfinite(numbers_P)].astype(np.float64)
    if not len(known):
        return Distribution(pairs=len(numbers_P), missing=len(numbers_P), quantiles={}, edges=[], counts=[])
    quantiles = dict(zip(QUANTILES, np.percentile(known, list(QUANTILES.values())).tolist(), strict=True))
    low, high = np.percentile(known, TAILS)
    inner = np.linspace(low, high, DISTRIBUTION_BINS + 1)[1:-1]
    edges = np.unique([known.min(), *inner, known.max()])
    counts, _ = np.histogram(known, edges if len(edges) > 1 else 1)
    return Distribution(
        pairs=len(numbers_P),
        missing=len(numbers_P) - len(known),
        quantiles={name: _rounded(value) for name, value in (quantiles | {"mean": float(known.mean())}).items()},
        edges=[_rounded(edge) for edge in edges.tolist()],
        counts=counts.tolist() if len(edges) > 1 else [],
    )


def _rounded(value: float) -> float:
    """To the seven digits of a float32."""
    return float(f"{value:.7g}")


def short(value: float) -> str:
    """A number as people read it, to four digits or, from 1,000 on, to the unit."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


class Strip(NamedTuple):
    """Pairs that are shown side by side."""

    title: str
    positions: list[int]  # of the pairs, in the order of the score


def strips(numbers_P: np.ndarray, threshold: float | None) -> list[Strip]:
    """Pairs on both sides of a threshold, if there is one, of both ends, and of the quantiles between them."""
    known = numbers_P[np.isfinite(numbers_P)]
    if not len(known):
        return []
    found = [_strip(numbers_P, "lowest", numbers_P)]
    for share in STEPS:
        value = float(np.percentile(known, share))
        found.append(_strip(numbers_P, f"{share} % are below {short(value)}", np.abs(numbers_P - value)))
    found.append(_strip(numbers_P, "highest", -numbers_P))
    if threshold is None:
        return found
    below = int((known < threshold).sum())
    sides = (
        ("below", below, np.where(numbers_P < threshold, threshold - numbers_P, np.nan)),
        ("above", len(known) - below, np.where(numbers_P >= threshold, numbers_P - threshold, np.nan)),
    )
    return [
        _strip(numbers_P, f"just {side} {threshold:g}: {count:,} pairs are {side}, {count / len(known):.1%}", distances)
        for side, count, distances in sides
    ] + found


def _strip(numbers_P: np.ndarray, title: str, distances_P: np.ndarray) -> Strip:
    """The pairs of the smallest distances, which are NaN for pairs that can't be shown; of equal ones the first."""
    candidates = np.flatnonzero(np.isfinite(distances_P))
    if len(candidates) > EXAMPLES:
        farthest = np.partition(distances_P[candidates], EXAMPLES - 1)[EXAMPLES - 1]
        candidates = candidates[distances_P[candidates] <= farthest]
    nearest = candidates[np.argsort(distances_P[candidates], kind="stable")][:EXAMPLES]
    return Strip(title, nearest[np.argsort(numbers_P[nearest], kind="stable")].tolist())
