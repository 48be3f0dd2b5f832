"""Streams of pairs from tests' shards, and the order in which their keys come."""

from __future__ import annotations

import itertools
from pathlib import Path

from models.data.stream import Stream

SHARDS = (9, 7, 1, 11, 8)
PAIRS = sum(SHARDS)
BUFFER = 16  # smaller than the split: several buffers an epoch, one of them a single shard


def make_stream(dataset: Path, batch_size: int = 4, seed: int = 0, split: str = "train") -> Stream:
    return Stream(dataset, split, batch_size, seed, max_tokens=16, buffer=BUFFER)


def first_keys(stream: Stream, pairs: int) -> list[str]:
    keys: list[str] = []
    for batch in stream:
        keys += batch.keys
        if len(keys) >= pairs:
            return keys[:pairs]
    return keys


def global_keys(dataset: Path, ranks: int, workers: int, steps: int, state: dict | None, **options) -> tuple:
    """(keys of that many steps in the order of the global batch, state after them): every rank with its loader."""
    batch_size = 16
    keys = [[""] * batch_size for _ in range(steps)]
    for rank in range(ranks):
        stream = Stream(dataset, "train", batch_size, 3, buffer=BUFFER, rank=rank, ranks=ranks, **options)
        if state:
            stream.load_state_dict(state)
        batches = iter(stream.loader(workers))
        for step in range(steps):
            batch = next(batches)
            assert len(batch.keys) == len(batch.text_BT) == len(batch.codes_BN) == batch_size // ranks
            keys[step][rank::ranks] = batch.keys
        del batches  # ends its workers
    return list(itertools.chain(*keys)), stream.state_dict(after=batch)
