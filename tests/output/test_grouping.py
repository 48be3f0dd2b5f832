"""Groups by hash: contiguous ranges of it, the same for any order of the rows, empty ones included."""

from __future__ import annotations

import hashlib

import apache_beam as beam
import pytest

from pipeline.output.grouping import grouped_by_hash, key_hash, row_hash, sort_key
from pipeline.records import Rejected
from tests.support.transforms import apply


def row(i: int) -> Rejected:
    key = hashlib.sha256(b"%d" % i).hexdigest()[:32]
    return Rejected(key, "wit", "wit.tsv", i, "http://x/", "select", "not_english", "")


class Grouped(beam.PTransform):
    def expand(self, inputs):
        rows, number = inputs
        return grouped_by_hash(rows, number, key_hash)


@pytest.mark.parametrize("groups", [1, 3, 64])
def test_each_row_is_in_one_group(groups):
    rows = [row(i) for i in range(20)]
    found = dict(apply(Grouped(), rows, [groups])[""])
    assert sorted(found) == list(range(groups))  # empty ones, too
    in_order = [one for group in sorted(found) for one in sorted(found[group], key=key_hash)]
    assert in_order == sorted(rows, key=key_hash)


def test_no_rows():
    assert dict(apply(Grouped(), [], [2])[""]) == {0: [], 1: []}


def test_hashes_are_64_bits_and_differ():
    hashes = {row_hash(row(i)) for i in range(100)} | {key_hash(row(i)) for i in range(100)}
    assert len(hashes) == 200 and all(0 <= value < 1 << 64 for value in hashes)


def test_the_hash_of_a_row_is_fixed():
    """Files of earlier releases were cut by it."""
    key = "6b86b273ff34fce19d6b804eff5a3f57"
    assert sort_key(row(1)) == ("wit", "wit.tsv", 1, key)
    digest = hashlib.sha256(f"wit\0wit.tsv\x001\0{key}".encode()).hexdigest()
    assert row_hash(row(1)) == int(digest[:16], 16)
