"""Shard boundaries: divide the pairs evenly, in the order of their keys, independent of workers and arrival order.

No process sees all keys. Bins of their first digits are counted; the counts give the offsets of the boundaries, and
only the bins that contain a boundary are sorted.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import apache_beam as beam

from models.data.format import SPLITS, pack_sample, tar_member_bytes
from pipeline.output.schemas import schema_of
from pipeline.output.spill import Spill, SpillFile, read_spilled
from pipeline.records import EncodedPair

PAIRS_PER_SHARD = 10_000  # about 30 MB: quick to fetch, few enough to list
BIN_DIGITS = 4  # of a key in hexadecimal

KeyBin = tuple[str, str]  # split, first digits of a key
ShardBoundaries = Mapping[str, list[str]]  # split that has records -> the first key of each shard but the first


class ShardSize(NamedTuple):
    """The size of a shard."""

    pairs: int = PAIRS_PER_SHARD  # largest number in a shard
    bytes: int = 0  # approximate size; unless it is 0, `pairs` is ignored


class WeightedKey(NamedTuple):
    """The key of a pair, and how much of a shard the pair fills."""

    split: str
    key: str
    weight: int  # 1 or bytes

    @property
    def bin(self) -> KeyBin:
        return self.split, self.key[:BIN_DIGITS]


class BoundaryOffsets(NamedTuple):
    """Where shards start within a bin."""

    before: list[int]  # weight of the bin that precedes each start
    leads: bool  # whether it is the first bin of its split


WEIGHTS = schema_of(WeightedKey)


class FindShardBoundaries(beam.PTransform):
    """Records -> one ShardBoundaries. The shards of a split differ by at most one pair or, with a size in bytes, by
    less than the bytes of two pairs."""

    def __init__(self, output: str, size: ShardSize, draws: int):
        self._output, self._size, self._draws = output, size, draws

    def expand(self, records):
        weighed = records | "Weigh" >> beam.Map(weighted_key, self._size, self._draws).with_output_types(WeightedKey)
        spills = weighed | "Spill" >> Spill(self._output, WEIGHTS, split_hash)
        weights = (
            weighed
            | "By bin" >> beam.Map(lambda pair: (pair.bin, pair.weight)).with_output_types(tuple[KeyBin, int])
            | "Sum" >> beam.CombinePerKey(sum)
            | "All bins" >> beam.combiners.ToDict()
        )
        offsets = weights | "Locate boundaries" >> beam.Map(locate_boundaries, self._size)
        starts = (
            offsets
            | "Boundary bins" >> beam.FlatMap(lambda offsets: list(offsets.items()))
            | "Spread" >> beam.Reshuffle()
            | "Boundary keys" >> beam.FlatMap(read_boundary_keys, beam.pvalue.AsList(spills), self._output)
        )
        return weights | "By split" >> beam.Map(by_split, beam.pvalue.AsList(starts))


def packed(record: EncodedPair, draws: int) -> bytes:
    """The member of a shard that a record becomes."""
    return pack_sample(record.caption, record.tokens, record.codes, draws, record.other_captions)


def weighted_key(record: EncodedPair, size: ShardSize, draws: int) -> WeightedKey:
    weight = 1
    if size.bytes:
        weight = tar_member_bytes(packed(record, draws))
    return WeightedKey(record.split, record.key, weight)


def locate_boundaries(weights: Mapping[KeyBin, int], size: ShardSize) -> dict[KeyBin, BoundaryOffsets]:
    """The bins in which a shard starts, with the offsets."""
    found: dict[KeyBin, BoundaryOffsets] = {}
    for split in sorted({split for split, _ in weights}):
        bins = sorted(key_bin for key_bin in weights if key_bin[0] == split)
        ends = list(itertools.accumulate(weights[key_bin] for key_bin in bins))
        shards = -(-ends[-1] // (size.bytes or size.pairs))
        for number in range(1, shards):
            offset = number * ends[-1] // shards
            index = bisect_right(ends, offset)
            start = ends[index] - weights[bins[index]]
            found.setdefault(bins[index], BoundaryOffsets([], index == 0)).before.append(offset - start)
    return found


def read_boundary_keys(
    boundary: tuple[KeyBin, BoundaryOffsets], spills: list[SpillFile], output: str
) -> list[tuple[str, str]]:
    """(split, key) of the pairs of a bin with which a shard starts."""
    (split, digits), offsets = boundary
    first, last = (split_hash_of(split, digits.ljust(16, digit)) for digit in "0f")
    rows = read_spilled(output, spills, WEIGHTS, first, last + 1)
    pairs = sorted(zip(rows["key"].to_pylist(), rows["weight"].to_pylist(), strict=True))
    return [(split, key) for key in boundary_keys(pairs, offsets)]


def boundary_keys(pairs: Sequence[tuple[str, int]], offsets: BoundaryOffsets) -> Iterator[str]:
    """The keys of a bin with which a shard starts; `pairs` are its keys, sorted, and their weights."""
    ends = list(itertools.accumulate(weight for _, weight in pairs))
    for offset in offsets.before:
        index = bisect_right(ends, offset)
        if index or not offsets.leads:  # else the first shard would be empty: its first pair is larger than a shard
            yield pairs[index][0]


def by_split(weights: Mapping[KeyBin, int], starts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The boundaries of every split that has records."""
    found: dict[str, list[str]] = {split: [] for split, _ in sorted(weights)}
    for split, key in sorted(set(starts)):
        found[split].append(key)
    return found


class ShardRange(NamedTuple):
    """The keys of one shard."""

    split: str
    number: int
    total: int  # shards of the split
    start: str  # its first key; "": all before `stop`
    stop: str  # the first key of the next shard; "": all from `start`

    def contains(self, split: str, key: str) -> bool:
        return split == self.split and self.start <= key and (not self.stop or key < self.stop)

    @property
    def hashes(self) -> tuple[int, int]:
        """A range of `split_hash` that holds them."""
        return split_hash_of(self.split, self.start or "0" * 16), split_hash_of(self.split, self.stop or "f" * 16) + 1


def shard_ranges(boundaries: ShardBoundaries) -> Iterator[ShardRange]:
    for split, keys in boundaries.items():
        for number, (start, stop) in enumerate(itertools.pairwise(["", *keys, ""])):
            yield ShardRange(split=split, number=number, total=len(keys) + 1, start=start, stop=stop)


def split_hash(record: EncodedPair | WeightedKey) -> int:
    """Hashes in the order of split and key: a shard is one range of them."""
    return split_hash_of(record.split, record.key)


def split_hash_of(split: str, key: str) -> int:
    return SPLITS.index(split) << 63 | int(key[:16], 16) >> 1
