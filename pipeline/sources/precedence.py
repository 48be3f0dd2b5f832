"""Which of several pairs with one URL or one image stays."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.records import EncodedPair, Pair
from pipeline.sources.registry import SOURCES


def preferred_pair(pairs: Iterable[Pair | EncodedPair]) -> Pair | EncodedPair:
    """The pair that stays of several with one picture: of the first source, there of the first file, there the first
    row. Independent of the order in which they come."""
    return min(pairs, key=lambda pair: (RANK[pair.source], pair.file, pair.row, pair.key))


def first_of_url(pairs: np.ndarray, high: np.ndarray, low: np.ndarray, ranks: tuple[np.ndarray, ...]) -> np.ndarray:
    """For each row the one that stays of its URL: the first by `ranks` (the order of `preferred_pair`) of the
    `pairs` (numbers of rows) with the same 128 bits; a row that is not a pair has itself."""
    stays = np.arange(len(high))
    order = pairs[np.lexsort([column[pairs] for column in (*reversed(ranks), low, high)])]
    new = np.ones(len(order), bool)
    new[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    stays[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    return stays


RANK: dict[str, int] = {name: rank for rank, name in enumerate(SOURCES)}
"""Of pairs with one picture, the one of the source with the lowest rank stays."""
