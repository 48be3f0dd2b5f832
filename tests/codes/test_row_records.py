"""Rows of codes to records: keys, captions, splits, and the reason of each row that becomes none."""

from __future__ import annotations

import numpy as np
import pytest

from models.tokenizers.info import UINT16, CodeShape
from pipeline.codes.code_files import CodeRow
from pipeline.codes.row_codes import CodeForm, RowCodes
from pipeline.codes.row_records import encode_row
from pipeline.records import EncodedPair, Rejected, row_key, split_of
from pipeline.sources.tables import Record
from tests.support.datasets import tiny_text_tokenizer

FORM = CodeForm((4,), 1, CodeShape(sequence=4), 10)
TEXT = tiny_text_tokenizer()
CODES = np.array([1, 2, 3, 4])


def encoded(codes=CODES, fault="", **values):
    record = Record({"caption": "A red cat", **values}, fault, "the row")
    return encode_row(CodeRow(7, record, RowCodes(codes, (len(codes),))), "a.parquet", FORM, UINT16, TEXT)


def test_a_row_becomes_a_record():
    url = "https://x.org/a.jpg"
    stated = {"url": url, "width": 640, "height": 480, "license": "CC0", "sha256": "AB" * 32}
    row = encoded(caption="  A red\n cat ", **stated)
    assert isinstance(row, EncodedPair)
    assert (row.source, row.file, row.row, row.caption, row.licence) == ("codes", "a.parquet", 7, "A red cat", "CC0")
    assert (row.width, row.height, row.url, row.sha256, row.phash) == (640, 480, url, "ab" * 32, "")
    assert np.frombuffer(row.codes, UINT16).tolist() == CODES.tolist() and not row.boxes
    assert np.frombuffer(row.tokens, UINT16).tolist() == TEXT.encode("A red cat")
    assert row.key == row_key("codes", url, "  A red\n cat ") and row.split == split_of(row.key, 0.01)


def test_captions_of_one_image():
    row = encoded(caption=None, captions=["", "A red cat", "a  red CAT", "Some animal"])
    assert (row.caption, tuple(row.other_captions)) == ("A red cat", ("Some animal",))


def test_keys():
    own = "0123456789abcdef" * 2
    assert encoded(key=own, url="https://x.org/a.jpg").key == own
    by_number, by_text = encoded(key=12).key, encoded(key="12").key
    assert by_number == by_text == row_key("codes", "12", "A red cat") != encoded(id=13).key
    by_codes = encoded()
    assert by_codes.key == encoded().key != encoded(codes=CODES[::-1].copy()).key
    assert by_codes.sha256 == encoded(key=1).sha256 != encoded(codes=CODES[::-1].copy()).sha256


@pytest.mark.parametrize(("split", "expected"), [("val", "val"), ("validation", "val"), ("train", "train")])
def test_a_split_that_is_stated(split, expected):
    assert encoded(split=split, source="cc12m").split == expected and encoded(source="cc12m").source == "cc12m"


@pytest.mark.parametrize(
    ("values", "stage", "reason", "detail"),
    [
        ({"caption": None}, "select", "no_caption", ""),
        ({"caption": " "}, "select", "no_caption", ""),
        ({"codes": CODES[:3]}, "encode", "bad_codes", "3 codes, expected 4"),
        ({"codes": CODES + 6}, "encode", "bad_codes", "code 10 of a vocabulary of 10"),
        ({"fault": "2 fields, expected 3"}, "select", "malformed_row", "2 fields, expected 3: the row"),
        ({"split": "test"}, "select", "malformed_row", "split 'test': give train, val, validation or nothing: the row"),
        ({"source": "no name/"}, "select", "malformed_row", "source 'no name/': give up to 31"),
        ({"source": 5}, "select", "malformed_row", "source 5: give up to 31"),
    ],
)
def test_rows_that_are_rejected(values, stage, reason, detail):
    row = encoded(key="k", **values)
    assert isinstance(row, Rejected)
    assert (row.stage, row.reason, row.file, row.row) == (stage, reason, "a.parquet", 7)
    assert row.detail.startswith(detail)
