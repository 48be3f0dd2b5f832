"""The order in which training meets the pairs of a split: a function of (seed, epoch), of nothing else.

An epoch shuffles the shards and lays them end to end. That line of pairs is cut into `lanes` equal pieces, each lane is
shuffled piece by piece, and the epoch takes a pair from each lane in turn: place i is the (i // lanes)-th of lane
i % lanes. Who reads a place (which rank, which worker) has no part in it. A rank that takes every R-th place meets only
lanes / R of the lanes, hence of the shards, where R divides the number of lanes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LANES = 8
SHUFFLE_BUFFER = 8_192  # pairs of a lane shuffled together; only their offsets are held, 12 bytes a pair


class ShuffleBlock(NamedTuple):
    """Pairs of a lane that are shuffled together."""

    epoch: int
    lane: int
    number: int  # in the lane


class EpochOrder:
    """Where each place of an epoch lies: (shard, entry of the shard)."""

    def __init__(
        self, pairs: Sequence[int], seed: int, lanes: int = LANES, buffer: int = SHUFFLE_BUFFER, shuffled: bool = True
    ):
        """`pairs` of each shard. Not shuffled: in the order on disk, by one lane."""
        self._pairs = np.asarray(pairs, np.int64)
        self._seed, self._shuffled, self.buffer = seed, shuffled, buffer
        self.lanes = lanes if shuffled else 1
        self.total = int(self._pairs.sum())
        self._line = functools.lru_cache(maxsize=2)(self._lay_out)

    def blocks(self, positions: np.ndarray) -> list[tuple[ShuffleBlock, np.ndarray, np.ndarray]]:
        """Global positions (over all epochs) as (block, rows of `positions` that it holds, offsets in it), in their order."""
        epoch, place = np.divmod(positions, self.total)
        lane, within = place % self.lanes, place // self.lanes
        number, offset = np.divmod(within, self.buffer)
        ids = (epoch * (int(number.max(initial=0)) + 1) + number) * self.lanes + lane  # one for each block
        return [
            (ShuffleBlock(int(epoch[rows[0]]), int(lane[rows[0]]), int(number[rows[0]])), rows, offset[rows])
            for each in np.unique(ids)
            for rows in [np.flatnonzero(ids == each)]
        ]

    def entries(self, block: ShuffleBlock) -> tuple[np.ndarray, np.ndarray]:
        """(shards, entries of them) of a block, in its shuffled order. Empty for one beyond the lane's end."""
        share, rest = divmod(self.total, self.lanes)
        length = share + (block.lane < rest)
        start = block.number * self.buffer
        size = max(0, min(self.buffer, length - start))
        first = block.lane * share + min(block.lane, rest) + start
        positions = first + self._permutation(f"{block.epoch}/{block.lane}/{block.number}", size)
        order, ends = self._line(block.epoch)
        at = np.searchsorted(ends, positions, side="right")
        return order[at], positions - ends[at] + self._pairs[order[at]]

    def _lay_out(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(shards in the epoch's order, where each ends on the line)."""
        order = self._permutation(f"{epoch}", len(self._pairs))
        return order, np.cumsum(self._pairs[order])

    def _permutation(self, what: str, n: int) -> np.ndarray:
        return permutation(f"{self._seed}/{what}", n) if self._shuffled else np.arange(n)


def permutation(what: str, n: int) -> np.ndarray:
    """A shuffle of range(n) that follows from the text."""
    # RandomState, because NumPy keeps its numbers the same for ever; those of default_rng may change.
    return np.random.RandomState(np.frombuffer(hashlib.sha256(what.encode()).digest(), np.uint32)).permutation(n)
