"""One behaviour of the stream for any number of readers, forked or not."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest

from models.data.epoch_order import EpochOrder, lanes_for
from models.data.stream import Stream
from models.errors import UserError
from tests.support.streams import PAIRS, first_keys, global_keys, make_stream

READERS = (0, 1, 2)


@pytest.mark.parametrize("workers", READERS)
def test_each_part_of_an_epoch_goes_on_where_the_last_one_ended(stream_dataset, workers):
    expected = first_keys(make_stream(stream_dataset), 9 * 4)
    stream = make_stream(stream_dataset)
    loader, found = stream.loader(workers), []
    for epoch in range(3):
        for batch in itertools.islice(loader, 3):
            found += batch.keys
        assert stream.state_dict() == stream.state_dict(after=batch)
        assert stream.state_dict()["place"] == (epoch + 1) * 3 * 4
    assert found == expected


@pytest.mark.parametrize("workers", READERS)
def test_each_reading_of_the_validation_starts_at_its_first_pair(stream_dataset, workers):
    stream = make_stream(stream_dataset, batch_size=2, split="val")
    loader = stream.loader(workers)
    first = [batch.keys for batch in loader]
    assert len(first) == 3
    assert [batch.keys for batch in itertools.islice(loader, 1)] == first[:1]
    state = stream.state_dict()
    assert [batch.keys for batch in loader] == first
    stream.load_state_dict(state)
    assert [batch.keys for batch in loader] == first[1:]
    assert [batch.keys for batch in loader] == first


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_readers_are_started_in_any_way(stream_dataset, start):
    stream = Stream(stream_dataset, "train", 4, 3, bpe_dropout=0.1)
    first = next(iter(stream))  # its files are open
    loader = stream.loader(workers=1)
    loader.multiprocessing_context = start
    batch = next(iter(loader))
    again = Stream(stream_dataset, "train", 4, 3, bpe_dropout=0.1)
    expected = list(itertools.islice(again, 2))
    assert (first.keys, batch.keys) == (expected[0].keys, expected[1].keys)
    assert batch.text_BT.equal(expected[1].text_BT)


def test_a_stream_with_a_cache_is_pickled(stream_dataset, tmp_path):
    import fsspec

    fsspec.filesystem("memory").put(f"{stream_dataset}/", "/pickled", recursive=True)
    stream = Stream("memory://pickled", "train", 4, 3, cache=tmp_path)
    next(iter(stream))
    copy = pickle.loads(pickle.dumps(stream))
    assert first_keys(copy, PAIRS) == first_keys(stream, PAIRS)
    fsspec.filesystem("memory").rm("/pickled", recursive=True)


def test_no_shard_is_read_by_all_of_many_ranks():
    order = EpochOrder([40] * 64, seed=0, lanes=lanes_for(64), buffer=8)
    full = np.arange(order.total)
    readers = [0] * 64
    for rank in range(64):
        blocks = order.blocks(full[rank::64])
        for shard in {int(shard) for block, _, _ in blocks for shard in order.entries(block)[0]}:
            readers[shard] += 1
    assert readers == [1] * 64


def test_a_run_resumed_by_fewer_ranks_keeps_its_lanes(stream_dataset):
    first, state = global_keys(stream_dataset, 16, 0, 2, None)
    then, _ = global_keys(stream_dataset, 1, 1, 2, state)
    assert first + then == global_keys(stream_dataset, 16, 0, 4, None)[0]
    with pytest.raises(UserError, match="lanes was 16, now is 8"):
        global_keys(stream_dataset, 1, 0, 1, state, lanes=8)
