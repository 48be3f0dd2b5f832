"""Weights by source: how often an epoch contains each pair, which follows from the manifest and the seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from models.data.epoch_order import permutation
from models.data.format import Shard
from models.errors import UserError
from models.hashing import hash_fraction, stable_hash


class SourceWeights:
    """Repeats pairs by the weight of their source.

    With weight 2.25 an epoch contains each pair of the source twice, and a quarter of them a third time, another
    quarter in each epoch. With weight 0 it contains none of them. Sources without a weight have weight 1.
    """

    def __init__(self, directory: str, shards: Sequence[Shard], weights: Mapping[str, float], seed: int):
        """Raises UserError for invalid weights, unknown sources, and a manifest without counts by source."""
        self.weights = {source: float(weight) for source, weight in sorted(weights.items())}
        for source, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise UserError(f"weight {weight} of source {source}: give a number from 0")
        known = {source for shard in shards for source in shard.sources}
        if any(sum(shard.sources.values()) != shard.pairs for shard in shards):
            raise UserError(
                f"{directory}: its manifest does not count the sources of each shard, which weights need; "
                "run `pairmill repack` on it"
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
            raise UserError(f"{directory}: with these weights an epoch has no pairs; give a source a larger weight")

    def _repeats(self, shard: int, source: str, pairs: int) -> int:
        """Number of pairs of a source that an epoch takes from a shard, rounded so that the mean is exact."""
        uniform = hash_fraction(stable_hash(f"{self._seed}/weights/{shard}/{source}"))
        return math.floor(self.weights.get(source, 1.0) * pairs + uniform)

    def epoch_entries(self, shard: int, sources: np.ndarray, epoch: int) -> np.ndarray:
        """The members of a shard in an epoch's entries, int64 [pairs[shard]]; `sources` are the members'."""
        parts = []
        for source, number in self._counts[shard].items():
            positions = np.flatnonzero(sources == source.encode())
            repeats, remainder = divmod(number, len(positions))
            extra = permutation(f"{self._seed}/{epoch}/weights/{shard}/{source}", len(positions))[:remainder]
            parts += [positions] * repeats + [positions[extra]]
        return np.concatenate(parts)
