"""What happens to records between encoding and shards."""

from __future__ import annotations

from models.data.format import File, Shard, read_token_shard
from models.tokenizers.info import UINT16
from pipeline.dataset.existing import JoinExisting, RemainingRejects, read_records
from pipeline.dataset.shards import write_shard
from pipeline.dataset.stage import DropSamePairs
from pipeline.output.ledger import READ
from pipeline.records import REJECTED_TAG, Rejected
from tests.support.datasets import tiny_text_tokenizer
from tests.support.records import make_record
from tests.support.transforms import apply

KEYS = [f"{i:x}" * 32 for i in range(3)]
RECORD = make_record(0, tiny_text_tokenizer())


def rejected(key: str, stage: str, reason: str) -> Rejected:
    return Rejected(key, "wit", "wit.tsv", 1, "http://x/", stage, reason, "")


def test_of_the_same_image_and_caption_the_first_stays(tmp_path):
    mirrors = [RECORD._replace(key=f"{row:032x}", row=row) for row in (3, 1, 2)]
    other_caption = RECORD._replace(caption="another")
    outputs = apply(DropSamePairs(str(tmp_path)), [*mirrors, other_caption])
    assert sorted((record.row, record.caption) for record in outputs["records"]) == sorted(
        [(1, RECORD.caption), (RECORD.row, "another")]
    )
    assert sorted((row.row, row.stage, row.reason, row.detail) for row in outputs[REJECTED_TAG]) == [
        (row, "encode", "duplicate_pair", f"kept {1:032x}") for row in (2, 3)
    ]


def test_an_image_that_could_not_be_fetched_is_there_now(tmp_path):
    rejects = [
        rejected(KEYS[0], "fetch", "http_404"),
        rejected(KEYS[1], "fetch", "http_404"),
        rejected(KEYS[2], "select", "not_english"),
    ]
    outputs = apply(RemainingRejects(str(tmp_path)), rejects, [(key,) for key in (KEYS[0], KEYS[2], "f" * 32)])
    assert outputs["replaced"] == rejects[:1]
    assert sorted(outputs["rejects"]) == sorted(rejects[1:])


def test_without_datasets_each_row_is_read_once(tmp_path):
    encode_reject, fetch_reject = rejected(KEYS[0], "encode", "decode_error"), rejected(KEYS[1], "fetch", "http_404")
    outputs = apply(JoinExisting([], None, str(tmp_path)), [RECORD], [encode_reject], [fetch_reject])
    assert outputs["records"] == [RECORD]
    assert sorted(outputs["rejects"]) == sorted([encode_reject, fetch_reject])
    totals: dict[str, int] = {}
    for (source, what, _), number in outputs["counts"]:
        assert what == READ
        totals[source] = totals.get(source, 0) + number
    assert sum(totals.values()) == 3


def test_the_counts_of_fetch_are_those_of_its_ledger(tmp_path):
    ledger = {"sources": {"wit": {"read": 7, "kept": 1, "rejected": {"select": {"not_english": 6}}}}}
    outputs = apply(JoinExisting([], ledger, str(tmp_path)), [RECORD], [], [])
    assert outputs["counts"] == [(("wit", READ, ""), 7)]


def test_other_captions_are_in_shard_and_index(tmp_path):
    """A sample without any is as it was before there were such."""
    records = [RECORD._replace(key=KEYS[0]), RECORD._replace(key=KEYS[1], other_captions=("A tower", "a gate"))]
    written = write_shard(str(tmp_path), 1, ("train", 0, 1), records)
    samples = list(read_token_shard(tmp_path / written.path, UINT16))
    assert [sample.other_captions for sample in samples] == [(), ("A tower", "a gate")]
    data = (tmp_path / written.path).read_bytes()
    assert data.count(b"other_captions") == 1
    shard = Shard(written.path, written.split, written.pairs, written.bytes, written.sha256)
    again = read_records(str(tmp_path), shard, File(*written.index_file))
    assert [tuple(record.other_captions) for record in again] == [(), ("A tower", "a gate")]
