"""Rows by ranges of their hash, from files: each row once, whatever the order, the workers, the size of the files."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from pipeline.output import spill
from pipeline.output.grouping import key_hash
from pipeline.output.schemas import REJECTS
from pipeline.output.spill import (
    BINS,
    HASH,
    HashRange,
    HashRanges,
    Spill,
    hash_ranges,
    read_spilled,
    rows_as,
    to_batch,
    with_hash,
    write_spill,
)
from pipeline.records import Rejected
from tests.support.transforms import apply


def row(i: int) -> Rejected:
    key = hashlib.sha256(b"%d" % i).hexdigest()[:32]
    return Rejected(*(key, "wit", "wit.tsv", i, "http://x/", "select", "not_english", ""))


ROWS = [row(i) for i in range(500)]


@pytest.mark.parametrize("groups", [1, 3, 64, 5000])
def test_each_row_is_in_one_group(tmp_path, groups, monkeypatch):
    monkeypatch.setattr(spill, "BATCH_ROWS", 100)
    monkeypatch.setattr(spill, "SPILL_BYTES", 20_000)
    spills = apply(Spill(str(tmp_path), REJECTS, key_hash), ROWS)[""]
    assert len(spills) > 1 and sum(one.rows for one in spills) == len(ROWS)
    found: list[Rejected] = []
    for group in hash_ranges(groups, 1):
        table = read_spilled(str(tmp_path), spills, REJECTS, *group.bounds)
        numbers = {value * groups >> 64 for value in table[HASH].to_pylist()}
        assert numbers <= {group.first}
        found += rows_as(Rejected, table)
    assert sorted(found) == sorted(ROWS)


def test_several_collections_are_spilled_one_by_one(tmp_path):
    class Parts(Spill):
        def expand(self, rows):
            return super().expand(tuple(rows))

    spills = apply(Parts(str(tmp_path), REJECTS, key_hash), ROWS[:200], ROWS[200:])[""]
    table = read_spilled(str(tmp_path), spills, REJECTS, 0, 2**64)
    assert sorted(rows_as(Rejected, table)) == sorted(ROWS)


def test_the_ends_of_the_range(tmp_path):
    hashes = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]
    batch = to_batch([(*ROWS[i], value) for i, value in enumerate(hashes)], REJECTS)
    one = write_spill(str(tmp_path), "rows.arrow", pa.Table.from_batches([batch]))
    for low, high, expected in ((0, 1, 1), (1, 2**63, 2), (2**63, 2**64, 2), (2**64 - 1, 2**64, 1), (5, 9, 0)):
        assert len(read_spilled(str(tmp_path), [one], REJECTS, low, high)) == expected


def test_only_the_bytes_of_the_range_are_read(tmp_path, monkeypatch):
    [one] = apply(Spill(str(tmp_path), REJECTS, key_hash), ROWS)[""]
    asked = []
    read_range = spill.read_range

    def recorded(*range_):
        asked.append(range_[1:])
        return read_range(*range_)

    monkeypatch.setattr(spill, "read_range", recorded)
    for group in hash_ranges(8, 1):
        read_spilled(str(tmp_path), [one], REJECTS, *group.bounds)
    segments = np.frombuffer(one.segments, "<u4")
    assert asked == [(segments[BINS * i // 8], segments[BINS * (i + 1) // 8]) for i in range(8)]


def test_a_file_that_is_cut_off(tmp_path):
    [one] = apply(Spill(str(tmp_path), REJECTS, key_hash), ROWS)[""]
    path = tmp_path / one.path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OSError, match="ends after"):
        read_spilled(str(tmp_path), [one], REJECTS, 0, 2**64)


def test_no_rows(tmp_path):
    assert apply(Spill(str(tmp_path), REJECTS, key_hash), [])[""] == []
    assert apply(HashRanges(10), [])[""] == [HashRange(0, 1, 1)]
    assert read_spilled(str(tmp_path), [], REJECTS, 0, 2**64).schema.equals(with_hash(REJECTS))


def test_groups_share_a_range_where_there_are_many():
    assert hash_ranges(101, 10) == [HashRange(i, i + 1, 11) for i in range(11)]
    few = hash_ranges(100, 1, max_groups=16)
    assert len(few) == 100  # of fewer than two a worker would get nothing
    many = hash_ranges(10_000, 1, max_groups=16)
    assert [(one.first, one.stop) for one in many[:2]] == [(0, 16), (16, 32)] and many[-1].stop == 10_000
