"""What happens to records between encoding and shards."""

from __future__ import annotations

import apache_beam as beam

from pipeline.dataset.existing import JoinExisting, RemainingRejects
from pipeline.dataset.stage import REJECTED, KeepFirstPair, by_pair
from pipeline.output.ledger import READ
from pipeline.records import Rejected
from tests.support.datasets import tiny_text_tokenizer
from tests.support.records import make_record
from tests.support.transforms import apply

RECORD = make_record(0, tiny_text_tokenizer())
KEEP_FIRST = beam.ParDo(KeepFirstPair()).with_outputs(REJECTED, main="records")


def rejected(key: str, stage: str, reason: str) -> Rejected:
    return Rejected(key, "wit", "wit.tsv", 1, "http://x/", stage, reason, "")


def test_of_the_same_image_and_caption_the_first_stays():
    mirrors = [RECORD._replace(key=f"{row:032x}", row=row) for row in (3, 1, 2)]
    other_caption = RECORD._replace(caption="another")
    groups = [(by_pair(RECORD)[0], mirrors), (by_pair(other_caption)[0], [other_caption])]
    assert groups[0][0] != groups[1][0]
    outputs = apply(KEEP_FIRST, groups)
    assert sorted(record.row for record in outputs["records"]) == sorted([1, other_caption.row])
    assert sorted((row.row, row.stage, row.reason, row.detail) for row in outputs[REJECTED]) == [
        (row, "encode", "duplicate_pair", f"kept {1:032x}") for row in (2, 3)
    ]


def test_an_image_that_could_not_be_fetched_is_there_now():
    rejects = [
        rejected("a", "fetch", "http_404"),
        rejected("b", "fetch", "http_404"),
        rejected("c", "select", "not_english"),
    ]
    outputs = apply(RemainingRejects(), rejects, ["a", "c", "new"])
    assert outputs["replaced"] == rejects[:1]
    assert sorted(outputs["rejects"]) == sorted(rejects[1:])


def test_without_datasets_each_row_is_read_once():
    encode_reject, fetch_reject = rejected("a", "encode", "decode_error"), rejected("b", "fetch", "http_404")
    outputs = apply(JoinExisting([], None), [RECORD], [encode_reject], [fetch_reject])
    assert outputs["records"] == [RECORD]
    assert sorted(outputs["rejects"]) == sorted([encode_reject, fetch_reject])
    totals = {}
    for (source, what, _), number in outputs["counts"]:
        assert what == READ
        totals[source] = totals.get(source, 0) + number
    assert sum(totals.values()) == 3


def test_the_counts_of_fetch_are_those_of_its_ledger():
    ledger = {"sources": {"wit": {"read": 7, "kept": 1, "rejected": {"select": {"not_english": 6}}}}}
    outputs = apply(JoinExisting([], ledger), [RECORD], [], [])
    assert outputs["counts"] == [(("wit", READ, ""), 7)]
