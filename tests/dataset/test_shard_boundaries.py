"""Even shards, cut from the sorted keys."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from pipeline.dataset.shard_boundaries import (
    FindShardBoundaries,
    ShardSize,
    WeightedKey,
    boundary_keys,
    by_split,
    locate_boundaries,
    shard_ranges,
    split_hash,
    weighted_key,
)
from tests.support.datasets import tiny_text_tokenizer
from tests.support.records import make_record
from tests.support.transforms import apply


def boundaries_of(pairs: list[WeightedKey], size: ShardSize) -> dict[str, list[str]]:
    """What FindShardBoundaries gives, without Beam."""
    weights: Counter = Counter()
    for pair in pairs:
        weights[pair.bin] += pair.weight
    return by_split(
        weights,
        [
            (key_bin[0], key)
            for key_bin, offsets in locate_boundaries(weights, size).items()
            for key in boundary_keys(sorted((pair.key, pair.weight) for pair in pairs if pair.bin == key_bin), offsets)
        ],
    )


def shards_of(pairs: list[WeightedKey], size: ShardSize) -> dict[tuple[str, int, int], list[WeightedKey]]:
    return {
        (shard.split, shard.number, shard.total): [
            pair for pair in sorted(pairs) if shard.contains(pair.split, pair.key)
        ]
        for shard in shard_ranges(boundaries_of(pairs, size))
    }


# Few digits, so that bins hold many keys and many hold none.
keys = st.lists(st.text("0123456789abcdef", min_size=5, max_size=5), unique=True, max_size=120)


@given(keys, st.integers(1, 30), st.randoms(use_true_random=False))
def test_shards_differ_by_one_pair_at_most_and_none_is_too_large(names, size, chance):
    pairs = [WeightedKey(chance.choice(("train", "val")), name, 1) for name in names]
    shards = shards_of(pairs, ShardSize(size))
    for split in ("train", "val"):
        sizes = [len(members) for place, members in shards.items() if place[0] == split]
        total = sum(sizes)
        assert len(sizes) == -(-total // size) and all(place[2] == len(sizes) for place in shards if place[0] == split)
        assert max(sizes, default=0) <= size and max(sizes, default=0) - min(sizes, default=0) <= 1
    chance.shuffle(pairs)
    assert shards_of(pairs, ShardSize(size)) == shards


@given(keys, st.integers(1, 9000), st.data())
def test_bytes_are_shared_out_but_for_a_pair(names, size, data):
    pairs = [WeightedKey("train", name, data.draw(st.integers(1, 3000))) for name in names]
    total, heaviest = sum(pair.weight for pair in pairs), max((pair.weight for pair in pairs), default=0)
    share = total / max(1, -(-total // size))
    shards = shards_of(pairs, ShardSize(bytes=size))
    assert [number for _, number, _ in shards] == list(range(len(shards)))  # none is empty
    for members in shards.values():
        assert sum(pair.weight for pair in members) < share + heaviest


def test_a_key_that_comes_twice_stays_in_one_shard():
    """Where it is seen and refused."""
    chance = random.Random(3)
    pairs = [WeightedKey("train", f"{chance.randrange(40):032x}", 1) for _ in range(200)]
    homes = defaultdict(set)
    for place, members in shards_of(pairs, ShardSize(7)).items():
        for pair in members:
            homes[pair.key].add(place)
    assert all(len(places) == 1 for places in homes.values())


def test_the_weight_of_a_pair_is_its_room_in_the_tar_file():
    record = make_record(3, tiny_text_tokenizer(), draws=2)
    assert weighted_key(record, ShardSize(7), 2) == ("train", record.key, 1)
    assert weighted_key(record, ShardSize(bytes=7), 2) == ("train", record.key, 1024)
    assert weighted_key(record._replace(caption="x" * 500), ShardSize(bytes=7), 2).weight == 1536


def test_the_boundaries_of_records(tmp_path):
    """Beam's way gives what the functions give; a shard's range of hashes holds its keys."""
    text = tiny_text_tokenizer()
    records = [make_record(i, text, split="val" if i % 7 == 0 else "train") for i in range(60)]
    pairs = [weighted_key(record, ShardSize(9), 1) for record in records]
    [boundaries] = apply(FindShardBoundaries(str(tmp_path), ShardSize(9), 1), records)[""]
    assert boundaries == boundaries_of(pairs, ShardSize(9)) and list(map(len, boundaries.values())) == [5, 0]
    for pair in pairs:
        [shard] = [shard for shard in shard_ranges(boundaries) if shard.contains(pair.split, pair.key)]
        low, high = shard.hashes
        assert low <= split_hash(pair) < high <= 2**64
