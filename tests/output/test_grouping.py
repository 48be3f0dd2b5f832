"""The order of rows and their hashes."""

from __future__ import annotations

import hashlib

from pipeline.output.grouping import key_hash, row_hash, sort_key
from pipeline.records import Rejected


def row(i: int) -> Rejected:
    key = hashlib.sha256(b"%d" % i).hexdigest()[:32]
    return Rejected(key, "wit", "wit.tsv", i, "http://x/", "select", "not_english", "")


def test_hashes_are_64_bits_and_differ():
    hashes = {row_hash(row(i)) for i in range(100)} | {key_hash(row(i)) for i in range(100)}
    assert len(hashes) == 200 and all(0 <= value < 1 << 64 for value in hashes)


def test_the_hash_of_a_row_is_fixed():
    """Files of earlier releases were cut by it."""
    key = "6b86b273ff34fce19d6b804eff5a3f57"
    assert sort_key(row(1)) == ("wit", "wit.tsv", 1, key)
    digest = hashlib.sha256(f"wit\0wit.tsv\x001\0{key}".encode()).hexdigest()
    assert row_hash(row(1)) == int(digest[:16], 16)
