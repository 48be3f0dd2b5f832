"""The order in which training reads the pairs of a split: a function of seed and epoch alone.

An epoch shuffles the shards and lays them end to end. This sequence of pairs is cut into `lanes` equal lanes, each lane
is shuffled block by block, and the epoch takes a pair from each lane in turn: position i is the (i // lanes)-th pair of
lane i % lanes. The order does not depend on which rank or worker reads a position. A rank that takes every R-th
position reads only lanes / R of the lanes, hence of the shards, if R divides the number of lanes. So there are LANES of
them for up to LANES ranks, and as many as ranks above.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LANES = 8  # at least
SHUFFLE_BUFFER = 8_192  # pairs of a lane shuffled together; memory holds only their offsets, 12 bytes a pair


class ShuffleBlock(NamedTuple):
    """Identifies a block: pairs of a lane that are shuffled together."""

    epoch: int
    lane: int
    number: int  # of the block in its lane


class EpochOrder:
    """Maps each position to (shard, entry of the shard)."""

    def __init__(
        self, pairs: Sequence[int], seed: int, lanes: int = LANES, buffer: int = SHUFFLE_BUFFER, shuffled: bool = True
    ):
        """`pairs`: number of pairs of each shard. Without `shuffled`, the order on disk in one lane."""
        self._pairs = np.asarray(pairs, np.int64)
        self._seed, self._shuffled, self.buffer = seed, shuffled, buffer
        self.lanes = lanes if shuffled else 1
        self.total = int(self._pairs.sum())
        self._lines: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # epoch -> its layout, of the last two

    def blocks(self, positions: np.ndarray) -> list[tuple[ShuffleBlock, np.ndarray, np.ndarray]]:
        """Groups positions, counted over all epochs, by block: (block, indices into `positions`, offsets in the
        block), both int64 [n]."""
        epoch, position = np.divmod(positions, self.total)
        lane, within = position % self.lanes, position // self.lanes
        number, offset = np.divmod(within, self.buffer)
        ids = (epoch * (int(number.max(initial=0)) + 1) + number) * self.lanes + lane  # one for each block
        return [
            (ShuffleBlock(int(epoch[rows[0]]), int(lane[rows[0]]), int(number[rows[0]])), rows, offset[rows])
            for block_id in np.unique(ids)
            for rows in [np.flatnonzero(ids == block_id)]
        ]

    def entries(self, block: ShuffleBlock) -> tuple[np.ndarray, np.ndarray]:
        """(shards, entries of the shards) of a block's n pairs, int64 [n], in their shuffled order; n is 0 beyond the
        lane's end."""
        share, remainder = divmod(self.total, self.lanes)
        length = share + (block.lane < remainder)
        start = block.number * self.buffer
        size = max(0, min(self.buffer, length - start))
        first = block.lane * share + min(block.lane, remainder) + start
        positions = first + self._permutation(f"{block.epoch}/{block.lane}/{block.number}", size)
        order, ends = self._line(block.epoch)
        at = np.searchsorted(ends, positions, side="right")
        return order[at], positions - ends[at] + self._pairs[order[at]]

    def _line(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(shards in the order of the epoch, end of each in the sequence of pairs)."""
        if epoch not in self._lines:
            if len(self._lines) == 2:
                del self._lines[next(iter(self._lines))]
            order = self._permutation(f"{epoch}", len(self._pairs))
            self._lines[epoch] = order, np.cumsum(self._pairs[order])
        return self._lines[epoch]

    def _permutation(self, name: str, n: int) -> np.ndarray:
        return permutation(f"{self._seed}/{name}", n) if self._shuffled else np.arange(n)


def lanes_for(ranks: int) -> int:
    """Number of lanes with which no shard is read by more ranks than need be."""
    return max(LANES, ranks)


def permutation(seed: str, n: int) -> np.ndarray:
    """A shuffled range(n) that follows from the seed, int64 [n]."""
    # RandomState, because NumPy never changes its stream of numbers; that of default_rng may change.
    return np.random.RandomState(np.frombuffer(hashlib.sha256(seed.encode()).digest(), np.uint32)).permutation(n)
