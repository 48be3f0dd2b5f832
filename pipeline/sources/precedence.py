"""Which of several pairs with one URL or one image stays."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.records import EncodedPair, Pair
from pipeline.sources.registry import SOURCES


def source_rank(name: str) -> int:
    """The source's position in the registry; a source that is not registered comes after all others."""
    return next((rank for rank, other in enumerate(SOURCES) if other == name), len(SOURCES))


def preferred_pair(pairs: Iterable[Pair | EncodedPair]) -> Pair | EncodedPair:
    """The pair that stays of several with one image: of the first source, there of the first file, there the first
    row. Independent of the order in which they come."""
    return min(pairs, key=lambda pair: (source_rank(pair.source), pair.file, pair.row, pair.key))


def first_of_url(pairs: np.ndarray, high: np.ndarray, low: np.ndarray, ranks: tuple[np.ndarray, ...]) -> np.ndarray:
    """For each row the row that stays of its URL.

    `pairs` [P] are the numbers of the rows that are pairs; `high` and `low` [N] are the halves of a 128-bit hash of
    each row's URL; `ranks` are arrays [N] in the order of `preferred_pair`. Returns [N]: the first pair by `ranks` with
    the same hash; for a row that is not a pair, the row itself.
    """
    kept_row = np.arange(len(high))
    order = pairs[np.lexsort([column[pairs] for column in (*reversed(ranks), low, high)])]
    new = np.ones(len(order), bool)
    new[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    kept_row[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    return kept_row
