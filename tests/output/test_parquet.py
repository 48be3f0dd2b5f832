"""Parquet files whose bytes follow from their rows alone."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.output import parquet, schemas
from pipeline.output.parquet import FileWriter, ReadParquet, WriteParquet, file_bytes, read_rows, table_bytes
from pipeline.output.schemas import REJECTS
from pipeline.records import Pair, Rejected
from tests.support.paths import files_of
from tests.support.transforms import apply

ROWS = [Rejected(f"{i:032x}", "wit", "wit.tsv", i, f"http://x/{i}", "select", "not_english", "") for i in range(50)]


@pytest.mark.parametrize("cut", [1, 7, 50])
def test_a_file_written_in_parts_is_that_of_the_whole(cut, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_ROWS", 16)
    table = pa.Table.from_pylist([row._asdict() for row in ROWS], schema=REJECTS)
    file = io.BytesIO()
    writer = FileWriter(file, REJECTS)
    for start in range(0, len(ROWS), cut):
        writer.write(table.slice(start, cut))
    written = writer.close("rejects/a.parquet")
    assert file.getvalue() == file_bytes(table) and written.bytes == len(file.getvalue())
    assert pq.ParquetFile(file).num_row_groups == 4


def test_a_file_without_rows_has_columns():
    file = io.BytesIO()
    FileWriter(file, REJECTS).close("empty.parquet")
    assert pq.read_table(file).schema.equals(REJECTS)


def test_rows_come_back(tmp_path):
    (tmp_path / "a.parquet").write_bytes(table_bytes(ROWS, REJECTS))
    assert list(read_rows(str(tmp_path / "a.parquet"), Rejected)) == ROWS
    assert apply(ReadParquet([str(tmp_path / "a.parquet")] * 2, Rejected))[""].count(ROWS[3]) == 2


@pytest.mark.parametrize("with_default", Pair._field_defaults)
def test_a_column_that_older_files_lack(tmp_path, with_default):
    pair = {name: "x" for name in Pair._fields} | {
        "row": 1,
        "fallback_urls": [],
        "other_captions": [],
        "width": 1,
        "height": 1,
    }
    del pair[with_default]
    schema = pa.schema([field for field in schemas.PAIRS if field.name != with_default])
    pq.write_table(pa.Table.from_pylist([pair], schema), tmp_path / "old.parquet")
    [row] = read_rows(str(tmp_path / "old.parquet"), Pair)
    assert getattr(row, with_default) == Pair._field_defaults[with_default]


def test_lists_that_older_files_lack_are_empty(tmp_path):
    schema = pa.schema([field for field in schemas.INDEX if field.name not in schemas.MAY_BE_MISSING])
    row = {"key": "0" * 32, "caption": "a dog"}
    pq.write_table(pa.Table.from_pylist([row], schema), tmp_path / "old.parquet")
    columns = ["other_captions", "caption"]
    found = parquet.read_columns(str(tmp_path / "old.parquet"), columns)
    assert found.to_pylist() == [{"other_captions": [], "caption": "a dog"}]
    assert parquet.table_of((tmp_path / "old.parquet").read_bytes(), columns).equals(found)


def test_files_follow_from_rows(tmp_path):
    for name, rows in (("one", ROWS), ("other", ROWS[::-1])):
        written = apply(WriteParquet(str(tmp_path / name), "rejects", REJECTS, rows_per_file=20), rows)[""]
        assert len(written) == 3
    assert files_of(tmp_path / "one" / "rejects") == files_of(tmp_path / "other" / "rejects")
    paths = parquet.files_in(str(tmp_path / "one"), "rejects")
    assert sorted(row for path in paths for row in read_rows(path, Rejected)) == sorted(ROWS)


def test_no_rows_give_one_file(tmp_path):
    [written] = apply(WriteParquet(str(tmp_path), "rejects", REJECTS), [])[""]
    assert written.path == "rejects/00000-of-00001.parquet"
    assert list(read_rows(str(tmp_path / written.path), Rejected)) == []
