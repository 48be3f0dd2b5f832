"""Shard boundaries: divide the pairs evenly, in the order of their keys, independent of workers and arrival order.

No process sees all keys. Bins of their first digits are counted; the counts give the offsets of the boundaries, and
only the bins that contain a boundary are sorted.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import apache_beam as beam

from models.data.format import pack_sample, tar_member_bytes
from pipeline.records import EncodedPair

PAIRS_PER_SHARD = 10_000  # about 30 MB: quick to fetch, few enough to list
BIN_DIGITS = 4  # of a key in hexadecimal

KeyBin = tuple[str, str]  # split, first digits of a key
ShardBoundaries = Mapping[str, list[str]]  # split -> the first key of each shard but the first


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


class FindShardBoundaries(beam.PTransform):
    """Records -> one ShardBoundaries. The shards of a split differ by at most one pair or, with a size in bytes, by
    less than the bytes of two pairs."""

    def __init__(self, size: ShardSize, draws: int):
        self._size, self._draws = size, draws

    def expand(self, records):
        weighed = records | "Weigh" >> beam.Map(weighted_key, self._size, self._draws)
        weights = (
            weighed
            | "By bin" >> beam.Map(lambda pair: (pair.bin, pair.weight)).with_output_types(tuple[KeyBin, int])
            | "Sum" >> beam.CombinePerKey(sum)
            | "All bins" >> beam.combiners.ToDict()
        )
        offsets = weights | "Locate boundaries" >> beam.Map(locate_boundaries, self._size)
        return (
            weighed
            | "In boundary bins"
            >> beam.FlatMap(in_boundary_bins, beam.pvalue.AsSingleton(offsets)).with_output_types(
                tuple[KeyBin, tuple[str, int]]
            )
            | "Gather" >> beam.GroupByKey()
            | "Boundary keys" >> beam.FlatMap(boundary_keys, beam.pvalue.AsSingleton(offsets))
            | "All boundaries" >> beam.combiners.ToList()
            | "By split" >> beam.Map(by_split)
        )


def weighted_key(record: EncodedPair, size: ShardSize, draws: int) -> WeightedKey:
    weight = 1
    if size.bytes:
        weight = tar_member_bytes(pack_sample(record.caption, record.tokens, record.codes, draws))
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


def in_boundary_bins(
    pair: WeightedKey, offsets: Mapping[KeyBin, BoundaryOffsets]
) -> Iterator[tuple[KeyBin, tuple[str, int]]]:
    if pair.bin in offsets:
        yield pair.bin, (pair.key, pair.weight)


def boundary_keys(
    group: tuple[KeyBin, Iterable[tuple[str, int]]], offsets: Mapping[KeyBin, BoundaryOffsets]
) -> Iterator[tuple[str, str]]:
    """(split, key) of the pairs of a bin with which a shard starts."""
    pairs, (before, leads) = sorted(group[1]), offsets[group[0]]
    ends = list(itertools.accumulate(weight for _, weight in pairs))
    for offset in before:
        index = bisect_right(ends, offset)
        if index or not leads:  # else the first shard would be empty: its first pair is larger than a shard
            yield group[0][0], pairs[index][0]


def by_split(boundaries: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for split, key in sorted(set(boundaries)):
        found.setdefault(split, []).append(key)
    return found


def shard_of(record: EncodedPair, boundaries: ShardBoundaries) -> tuple[str, int, int]:
    """The split, the number of the shard in it, and how many shards that has."""
    keys = boundaries.get(record.split, [])
    return record.split, bisect_right(keys, record.key), len(keys) + 1
