"""Samples of lists: how many rows all have is told from a few, whatever the form, and the choice is seeded."""

from __future__ import annotations

import bz2
import gzip
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.estimate import sample as sample_module
from pipeline.estimate.quantity import range_of
from pipeline.estimate.sample import take_sample
from pipeline.sources import source, table_source, yfcc100m
from pipeline.sources.file_ranges import file_ranges, read_range
from pipeline.sources.registry import DEFAULTS

ROWS = 30_000


def lines(rows: int) -> bytes:
    """A list as Conceptual Captions publishes it, whose rows become longer towards its end."""
    captions = (f"a cat on {'a very ' * (row * 8 // rows)}wall {row * 2_654_435_761 % 2**64:x}" for row in range(rows))
    return "".join(f"{caption}\thttp://h.example/{row}.jpg\n" for row, caption in enumerate(captions)).encode()


def write_parquet(path: Path) -> None:
    table = pa.table({"url": [f"http://h/{row}.jpg" for row in range(ROWS)], "text": ["a cat on a wall"] * ROWS})
    pq.write_table(table, path, row_group_size=1000)


def write_sqlite(path: Path) -> None:
    """As YFCC100M has it; every other row is a video."""
    fields = dict.fromkeys(yfcc100m.COLUMNS, "") | {"title": "a+cat+on+a+wall", "downloadurl": "http://h/1.jpg"}
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE {yfcc100m.TABLE} ({', '.join(fields)})")
        values = ([*(fields | {"photoid": row, "marker": row % 2}).values()] for row in range(ROWS))
        connection.executemany(f"INSERT INTO {yfcc100m.TABLE} VALUES ({', '.join('?' * len(fields))})", values)
    connection.close()


def rows_read(sample) -> int:
    return sum(1 for file_range in sample.file_ranges for _ in read_range(file_range))


@pytest.fixture
def small_ranges(monkeypatch):
    """Lists of a megabyte are cut as large ones are."""
    monkeypatch.setattr(source, "RANGE_BYTES", 1 << 18)
    monkeypatch.setattr(table_source, "PARQUET_RANGE_BYTES", 1 << 18)
    monkeypatch.setattr(yfcc100m, "SQLITE_ROWS", 8000)
    monkeypatch.setattr(sample_module, "PROBES", (1 << 12, 1 << 14, 1 << 24))
    monkeypatch.setattr(sample_module, "MIN_MEASURED_BYTES", 1 << 16)


@pytest.mark.parametrize("form", ["plain", "bzip2", "Parquet", "sqlite"])
def test_rows_of_a_long_list_are_told_from_a_few(form, tmp_path, small_ranges):
    path = tmp_path / "list"
    if form == "Parquet":
        write_parquet(path)
    elif form == "sqlite":
        write_sqlite(path)
    else:
        path.write_bytes(lines(ROWS) if form == "plain" else bz2.compress(lines(ROWS), 1))
    found = take_sample(
        file_ranges({"Parquet": "table", "sqlite": "yfcc100m"}.get(form, "cc3m"), str(path)), DEFAULTS, 800
    )
    [stratum] = found.strata
    assert len(found.file_ranges) > 1
    assert rows_read(found) == stratum.sampled == pytest.approx(800, rel=0.25)
    estimate = range_of(stratum.rows())
    assert estimate.value == pytest.approx(ROWS, rel=0.12)
    if form != "bzip2":  # of which four places have whole blocks: too few for a range
        assert estimate.low - 1 <= ROWS <= estimate.high


def test_gzip_is_read_from_its_beginning(tmp_path, small_ranges):
    text = "".join(f"a cat on a wall {row * 7919 % 1_000_003}\thttp://h.example/{row}.jpg\n" for row in range(200_000))
    path = tmp_path / "list.tsv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    found = take_sample(file_ranges("cc3m", str(path)), DEFAULTS, 500)
    assert rows_read(found) == 500
    [stratum] = found.strata
    assert stratum.rows()[0] == pytest.approx(200_000, rel=0.25)
    assert stratum.ranges[0].rows < 200_000, "it was read to its end"


def test_short_lists_are_read_whole_and_a_long_one_gets_what_they_leave(tmp_path, small_ranges):
    (tmp_path / "short.tsv").write_bytes(lines(40))
    (tmp_path / "long.tsv").write_bytes(lines(ROWS))
    ranges = file_ranges("cc12m", str(tmp_path / "short.tsv")) + file_ranges("cc3m", str(tmp_path / "long.tsv"))
    short, long = take_sample(ranges, DEFAULTS, 600).strata
    assert (short.source, short.sampled) == ("cc12m", 40)
    assert range_of(short.rows()) == (40, 40, 40)
    assert long.sampled == pytest.approx(560, rel=0.25)


def test_the_choice_is_seeded(tmp_path, small_ranges):
    (tmp_path / "long.tsv").write_bytes(lines(ROWS))
    ranges = file_ranges("cc3m", str(tmp_path / "long.tsv"))
    assert take_sample(ranges, DEFAULTS, 600) == take_sample(ranges, DEFAULTS, 600)


def test_an_empty_list_has_no_rows(tmp_path):
    (tmp_path / "empty.tsv").write_bytes(b"")
    [stratum] = take_sample(file_ranges("cc3m", str(tmp_path / "empty.tsv")), DEFAULTS, 100).strata
    assert range_of(stratum.rows()) == (0, 0, 0)
