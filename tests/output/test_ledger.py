"""The ledger adds up, or says so."""

from __future__ import annotations

import pytest

from pipeline.output.ledger import (
    KEPT,
    READ,
    CountRows,
    build_ledger,
    previous_counts,
    read_ledger,
    rejects_by_reason,
    write_ledger,
)
from pipeline.records import Rejected
from tests.support.transforms import apply

ROWS = [
    Rejected("a", "wit", "f", 1, "", "select", "not_english", ""),
    Rejected("b", "wit", "f", 2, "", "select", "not_english", ""),
    Rejected("c", "cc3m", "f", 1, "", "fetch", "http_404", ""),
]
COUNTS = [
    (("wit", READ, ""), 5),
    (("wit", KEPT, ""), 3),
    (("wit", "select", "not_english"), 2),
    (("cc3m", READ, ""), 1),
    (("cc3m", "fetch", "http_404"), 1),
]


def test_rows_are_counted():
    assert sorted(apply(CountRows(), ROWS)[""]) == [
        (("cc3m", "fetch", "http_404"), 1),
        (("wit", "select", "not_english"), 2),
    ]
    assert sorted(apply(CountRows(READ), ROWS)[""]) == [(("cc3m", READ, ""), 1), (("wit", READ, ""), 2)]


def test_a_ledger_of_counts(tmp_path):
    ledger = build_ledger(COUNTS, ["yfcc100m"])
    assert ledger["sources"]["yfcc100m"] == {"read": 0, "kept": 0, "rejected": {}}  # its files were empty
    assert ledger["sources"]["cc3m"] == {"read": 1, "kept": 0, "rejected": {"fetch": {"http_404": 1}}}
    assert rejects_by_reason(ledger) == {"fetch": {"http_404": 1}, "select": {"not_english": 2}}
    write_ledger(str(tmp_path), ledger)
    assert read_ledger(str(tmp_path)) == ledger


def test_a_stage_adds_to_what_the_earlier_ones_counted():
    earlier = [count for count in previous_counts(build_ledger(COUNTS, [])) if count[1]]
    assert sorted(earlier) == sorted(count for count in COUNTS if count[0][1] != KEPT)


@pytest.mark.parametrize("lost", range(len(COUNTS)))
def test_a_row_that_is_lost_is_a_defect(lost):
    with pytest.raises(RuntimeError, match="rows read, but"):
        build_ledger(COUNTS[:lost] + COUNTS[lost + 1 :], [])
