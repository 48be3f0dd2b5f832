"""Conditions on pairs: DuckDB computes them, one pair at a time."""

from __future__ import annotations

import sys

import pyarrow as pa
import pytest

from models.errors import UserError
from pipeline.scores.condition import holds, parse_condition

PAIRS = pa.table(
    {
        "key": ["a", "b", "c"],
        "caption": ["A red cat", "a Dog", "it's"],
        "width": pa.array([64, 300, 512], pa.int32()),
        "row": pa.array([1, 2, 3], pa.int64()),
        "clip": pa.array([0.1, 0.3, None], pa.float32()),
    }
)


@pytest.fixture
def duckdb():
    return pytest.importorskip("duckdb", reason="needs the extra `scores`")


@pytest.mark.parametrize(
    ("text", "expected", "columns"),
    [
        ("clip > 0.28", [False, True, None], ("clip",)),
        ("clip > 0.28 and width >= 300", [False, True, None], ("clip", "width")),
        ("clip is null or CLIP > .2", [False, True, True], ("clip",)),
        ("lower(caption) like '%cat%' or caption = 'it''s'", [True, False, True], ("caption",)),
        ("width between 100 and 400 -- a remark", [False, True, False], ("width",)),
        ("row + 1 in (2, 4)", [True, False, True], ("row",)),
        ("clip - 0.1 > 0.1", [False, True, None], ("clip",)),
        ("pairs.width / row > 100", [False, True, True], ("width", "row")),
    ],
)
def test_conditions(duckdb, text, expected, columns):
    condition = parse_condition(text, PAIRS.schema)
    assert condition.columns == columns and holds(condition, PAIRS) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clip >", "syntax error.*; give a condition such as"),
        (" ", "is empty; give a condition"),
        ("aesthetic > 5", "there is no column aesthetic; there are key, caption, width, row, clip$"),
        ("clip > (select avg(clip) from pairs)", "has a subquery; a condition sees one pair at a time"),
        ("row_number() over () < 9", "has a window function"),
        ("avg(clip) > 0.3", "WHERE clause cannot contain aggregates"),
        ("random() < 0.5", "random gives another result in each run"),
        ("caption < current_date", "there is no column current_date"),
        ("width > 1); select 1 where (1", "is more than one condition"),
        ("width > 1) order by (width", "is more than one condition"),
        ("caption > 3", "Cannot compare values of type VARCHAR"),
        ("nosuch(width)", "nosuch does not exist"),
    ],
)
def test_what_is_no_condition_on_a_pair_is_one_line(duckdb, text, said):
    with pytest.raises(UserError, match=f"^--where.*{said}") as error:
        parse_condition(text, PAIRS.schema)
    assert "\n" not in str(error.value).removeprefix(f"--where {text}")


def test_a_value_that_can_not_be_converted(duckdb):
    condition = parse_condition("caption::int > 3", PAIRS.schema)
    with pytest.raises(UserError, match=r"^--where caption::int > 3: Conversion Error: .*A red cat"):
        holds(condition, PAIRS)


def test_no_file_is_read(duckdb, tmp_path):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(UserError):
        parse_condition(f"'x' in (from read_text('{tmp_path}/secret'))", PAIRS.schema)


def test_without_duckdb(monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(UserError, match=r"pip install '.\[scores\]'"):
        parse_condition("width > 1", PAIRS.schema)
