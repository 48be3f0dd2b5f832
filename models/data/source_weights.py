"""Weights by source: how often an epoch has each pair, decided from the manifest and the seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

from models.data.epoch_order import permutation
from models.data.format import Shard
from models.errors import UserError


class SourceWeights:
    """A pair of a source with weight 2.25 comes twice in an epoch, and a quarter of them a third time: another quarter
    each epoch. A source with weight 0 does not come at all; one that is not named has weight 1."""

    def __init__(self, directory: str, shards: Sequence[Shard], weights: Mapping[str, float], seed: int):
        """Raises UserError for weights that are none, unknown sources, and a dataset that counts no sources."""
        self.weights = {source: float(weight) for source, weight in sorted(weights.items())}
        for source, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise UserError(f"weight {weight} of source {source}: give a number from 0")
        known = {source for shard in shards for source in shard.sources}
        if any(sum(shard.sources.values()) != shard.pairs for shard in shards):
            raise UserError(
                f"{directory}: its manifest does not count the sources of each shard, so that they cannot "
                "be weighted; run `pairmill repack` on it"
            )
        if unknown := [source for source in self.weights if source not in known]:
            raise UserError(f"{directory} has no source {unknown[0]!r}; it has {', '.join(sorted(known))}")
        self._seed = seed
        self._counts = [
            {source: self._repeats(number, source, pairs) for source, pairs in sorted(shard.sources.items())}
            for number, shard in enumerate(shards)
        ]
        self.pairs = [sum(counts.values()) for counts in self._counts]
        if not sum(self.pairs):
            raise UserError(f"{directory}: with these weights no pair is left; give a source more")

    def _repeats(self, shard: int, source: str, pairs: int) -> int:
        """How many pairs of the source an epoch has from this shard: rounded up or down so that the mean is right."""
        digest = hashlib.sha256(f"{self._seed}/weights/{shard}/{source}".encode()).digest()
        return math.floor(self.weights.get(source, 1.0) * pairs + int.from_bytes(digest[:4], "big") / 2**32)

    def epoch_entries(self, shard: int, sources: np.ndarray, epoch: int) -> np.ndarray:
        """The positions in the shard of its entries of that epoch, [pairs[shard]]."""
        parts = []
        for source, number in self._counts[shard].items():
            positions = np.flatnonzero(sources == source.encode())
            whole, rest = divmod(number, len(positions))
            some = permutation(f"{self._seed}/{epoch}/weights/{shard}/{source}", len(positions))[:rest]
            parts += [positions] * whole + [positions[some]]
        return np.concatenate(parts)
