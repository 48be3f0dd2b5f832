"""The best share of all pairs by one score, as DataComp takes it: an exact number of pairs, the same in every run."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.dataset.existing import packed_keys
from pipeline.scores.lookup import numbers_of
from pipeline.scores.score_files import KEY, Scores

DIGIT_BITS = 16
DIGITS = 1 << DIGIT_BITS


class Cutoff(NamedTuple):
    """Where the best pairs end: they have a greater value, or this one and a key up to `last_key`."""

    name: str
    share: float
    value: float
    last_key: str  # 32 hex digits; "" if no pair of this value is among the best

    def keeps(self, key: str, value: float) -> bool:
        return value > self.value or (value == self.value and key <= self.last_key)


def cutoff(scores: Scores, name: str, share: float) -> Cutoff:
    """Reads a score three times, one file at a time: memory does not grow with the number of pairs, but for those of
    the cutoff's own value. A pair without the score is never among the best."""
    pairs, known = 0, 0
    for numbers_P in numbers_of(scores, name):
        pairs, known = pairs + len(numbers_P), known + int(np.isfinite(numbers_P).sum())
    wanted = min(round(share * pairs), known)
    if not wanted:
        return Cutoff(name, share, float("inf"), "")
    high, better = _digit_of(_histogram(scores, name), wanted)
    low, also_better = _digit_of(_histogram(scores, name, high), wanted - better)
    value = _value(high << DIGIT_BITS | low)
    return Cutoff(name, share, value, _last_key(scores, name, value, wanted - better - also_better))


def _ordered(numbers_P: np.ndarray) -> np.ndarray:
    """Finite floats as uint32 of the same order; -0 as 0."""
    finite = (numbers_P[np.isfinite(numbers_P)] + np.float32(0)).astype(np.float32)
    bits = finite.view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value(ordered: int) -> float:
    """The float that `_ordered` turns into this number."""
    bits = ordered & ~(1 << 31) if ordered >> 31 else ~ordered & 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))


def _histogram(scores: Scores, name: str, high: int | None = None) -> np.ndarray:
    """How many numbers have each upper digit; or, of those with the upper digit `high`, each lower one. [DIGITS]"""
    counts_D = np.zeros(DIGITS, np.int64)
    for numbers_P in numbers_of(scores, name):
        ordered = _ordered(numbers_P)
        digits = ordered >> DIGIT_BITS if high is None else ordered[ordered >> DIGIT_BITS == high] & (DIGITS - 1)
        counts_D += np.bincount(digits, minlength=DIGITS)
    return counts_D


def _digit_of(counts_D: np.ndarray, rank: int) -> tuple[int, int]:
    """The digit of the number of a rank, from 1 for the largest, and how many numbers have larger digits."""
    from_above_D = counts_D[::-1].cumsum()
    place = int(np.searchsorted(from_above_D, rank))
    return DIGITS - 1 - place, int(from_above_D[place] - counts_D[DIGITS - 1 - place])


def _last_key(scores: Scores, name: str, value: float, wanted: int) -> str:
    """The `wanted`-th smallest key of the pairs with this value; files are sorted by key."""
    for table in scores.tables([KEY, name]):
        keys = packed_keys(table[KEY])[table[name].to_numpy() == np.float32(value)]
        if len(keys) >= wanted:
            return bytes(keys[wanted - 1]).ljust(16, b"\0").hex()
        wanted -= len(keys)
    raise AssertionError("the pairs were counted before")
