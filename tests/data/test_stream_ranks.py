"""Any number of processes and workers reads the same pairs in the same order."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data.epoch_order import EpochOrder
from models.data.stream import Stream
from models.errors import UserError
from tests.support.datasets import write_dataset
from tests.support.narrowing import required
from tests.support.streams import PAIRS, global_keys, make_stream


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more of them than this machine has cores
def test_any_number_of_ranks_and_workers_sees_the_same_order(stream_dataset, exhaustive):
    """Stopped after a random number of steps and resumed with other numbers, over three epochs and more."""
    kinds = list(itertools.product((1, 2, 4, 8), (0, 1, 2, 3)))
    chance = random.Random(7)
    chance.shuffle(kinds)
    kinds = kinds * 4 if exhaustive else [(1, 0), (8, 3), (2, 2), (4, 0), (1, 1), (2, 3)]
    steps = [chance.randint(1, 4) for _ in kinds]
    full, _ = global_keys(stream_dataset, 1, 0, sum(steps), None)
    found, state = [], None
    for (ranks, workers), some in zip(kinds, steps, strict=True):
        keys, state = global_keys(stream_dataset, ranks, workers, some, state)
        found += keys
    assert found == full
    for epoch in range(len(full) // PAIRS):
        assert len(set(full[epoch * PAIRS : (epoch + 1) * PAIRS])) == PAIRS
    assert len(full) >= 3 * PAIRS
    assert len(json.dumps(state)) < 400 and required(state)["version"] == 2


def test_fewer_shards_than_ranks_and_workers(tmp_path):
    write_dataset(tmp_path / "dataset", train=(5,))
    keys, _ = global_keys(tmp_path / "dataset", 8, 2, 2, None)
    assert keys == global_keys(tmp_path / "dataset", 1, 0, 2, None)[0] and len(set(keys)) == 5


def test_a_plain_data_loader_does_the_same(stream_dataset):
    ours, plain = (make_stream(stream_dataset) for _ in range(2))
    loader = torch.utils.data.DataLoader(plain, batch_size=None, num_workers=2)
    for one, other in zip(itertools.islice(ours, 12), loader, strict=False):
        assert (
            one.keys == other.keys
            and torch.equal(one.codes_BN, other.codes_BN)
            and one.next_position == other.next_position
        )


def test_validation_by_ranks_and_workers(stream_dataset):
    """In the order on disk; every rank has as many batches, the last of them short or empty."""
    full = [key for batch in make_stream(stream_dataset, split="val") for key in batch.keys]
    for ranks, workers in ((2, 2), (4, 0)):
        parts = [
            list(Stream(stream_dataset, "val", 4, rank=rank, ranks=ranks).loader(workers)) for rank in range(ranks)
        ]
        assert {len(part) for part in parts} == {2}
        keys = [[""] * 4, [""] * 4]
        for rank, part in enumerate(parts):
            for row, batch in zip(keys, part, strict=True):
                row[rank : rank + ranks * len(batch.keys) : ranks] = batch.keys
        assert [key for row in keys for key in row if key] == full


def test_a_fault_in_a_worker_ends_the_run(own_dataset):
    path = own_dataset / "train/00000-of-00002.tar"
    path.write_bytes(path.read_bytes()[:-1024])
    with pytest.raises(UserError, match=r"train/00000-of-00002\.tar is not the file"):
        list(itertools.islice(make_stream(own_dataset).loader(2), 4))


def test_a_rank_reads_its_own_lanes_only(stream_dataset):
    order = EpochOrder([40] * 16, seed=0, lanes=4, buffer=8)
    full = np.arange(order.total)
    shards = [
        {int(shard) for block, _, _ in order.blocks(full[rank::4]) for shard in order.entries(block)[0]}
        for rank in range(4)
    ]
    assert sorted(itertools.chain(*shards)) == list(range(16))


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any),
    lanes=st.integers(1, 9),
    buffer=st.integers(1, 40),
    seed=st.integers(0, 3),
    data=st.data(),
)
def test_an_epoch_is_every_entry_once(pairs, lanes, buffer, seed, data):
    order = EpochOrder(pairs, seed, lanes, buffer)
    epoch = data.draw(st.integers(0, 5))
    positions = np.arange(order.total) + epoch * order.total
    found = [(-1, -1)] * order.total
    for block, rows, at in order.blocks(positions):
        shards, entries = order.entries(block)
        for row, shard, entry in zip(rows, shards[at], entries[at], strict=True):
            found[row] = (int(shard), int(entry))
    assert sorted(found) == [(shard, entry) for shard, n in enumerate(pairs) for entry in range(n)]
