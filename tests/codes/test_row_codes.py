"""Codes of rows: lists of any nesting, what is wrong with them, and the shape that they tell."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from models.errors import UserError
from models.tokenizers.info import CodeShape
from pipeline.codes.row_codes import (
    CodeForm,
    RowCodes,
    codes_of_array,
    codes_of_column,
    list_depth,
    shape_of,
    usual_dimensions,
)

FORM = CodeForm((4,), 1, CodeShape(sequence=4), 10)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([[1, 2], [3, 4]], pa.list_(pa.uint16()), [((2,), [1, 2]), ((2,), [3, 4])]),
        ([[1, 2], [3, 4]], pa.list_(pa.int64(), 2), [((2,), [1, 2]), ((2,), [3, 4])]),
        ([[[1, 2, 3], [4, 5, 6]]], pa.large_list(pa.list_(pa.int32())), [((2, 3), [1, 2, 3, 4, 5, 6])]),
        (
            [[[[1]], [[2]]], [[[3]], [[4]]]],
            pa.list_(pa.list_(pa.list_(pa.int8()))),
            [((2, 1, 1), [1, 2]), ((2, 1, 1), [3, 4])],
        ),
    ],
)
def test_lists_of_any_kind(values, kind, expected):
    column = pa.array(values, kind)
    assert list_depth(kind) >= 1
    assert [(row.dimensions, row.values.tolist()) for row in codes_of_column(column)] == expected
    # a slice, as a batch of a file may be
    assert [row.values.tolist() for row in codes_of_column(column[1:])] == [codes for _, codes in expected[1:]]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "no codes"),
        ([], "no codes"),
        ([[]], "no codes"),
        ([[1, 2], [3]], "its lists have different lengths"),
        ([[1, 2], None], "its lists have different lengths"),
        ([[1, None]], "a code is missing"),
    ],
)
def test_rows_without_codes(value, fault):
    first, row, last = codes_of_column(pa.array([[[7, 8]], value, [[9, 9]]], pa.list_(pa.list_(pa.int32()))))
    assert row.fault == fault == FORM.fault(row)
    assert (first.values.tolist(), last.values.tolist()) == ([7, 8], [9, 9])


@pytest.mark.parametrize("kind", [pa.int32(), pa.list_(pa.float32()), pa.binary(), pa.list_(pa.string())])
def test_columns_that_are_no_codes(kind):
    with pytest.raises(UserError, match="give lists of integers"):
        list_depth(kind)


@pytest.mark.parametrize(
    ("codes", "fault"),
    [
        ([0, 1, 2, 9], ""),
        ([0, 1, 2], "3 codes, expected 4"),
        ([[0, 1], [2, 3]], "2 x 2 codes, expected 4"),
        ([0, 1, 2, 10], "code 10 of a vocabulary of 10"),
        ([0, 1, -2, 3], "code -2 of a vocabulary of 10"),
    ],
)
def test_codes_of_another_form(codes, fault):
    [row] = codes_of_array(np.array([codes]))
    assert FORM.fault(row) == fault


@pytest.mark.parametrize(
    ("dimensions", "draws", "given", "shape"),
    [
        ((256,), 1, None, CodeShape(sequence=256)),
        ((16, 16), 1, None, CodeShape(grid=(16, 16))),
        ((256,), 1, CodeShape(grid=(16, 16)), CodeShape(grid=(16, 16))),
        ((1, 256), 1, CodeShape(sequence=256), CodeShape(sequence=256)),
        ((2, 16, 8), 2, None, CodeShape(grid=(16, 8))),
        ((2, 16), 2, None, CodeShape(sequence=16)),
        ((32,), 2, None, CodeShape(sequence=16)),
        ((21,), 1, CodeShape(scales=((1, 1), (2, 2), (4, 4))), CodeShape(scales=((1, 1), (2, 2), (4, 4)))),
    ],
)
def test_the_shape_that_dimensions_tell(dimensions, draws, given, shape):
    assert shape_of(dimensions, draws, given) == shape


@pytest.mark.parametrize(
    ("dimensions", "draws", "given", "told"),
    [
        ((255,), 1, CodeShape(grid=(16, 16)), r"255 codes a row, expected 256 \(16 x 16\)"),
        ((256,), 2, CodeShape(grid=(16, 16)), "expected 2 crops of 256"),
        ((2, 16, 16), 1, None, "2 x 16 x 16 codes a row: .* --code-shape .* --draws"),
        ((33,), 2, None, "not those of --draws 2; .* --code-shape"),
        ((16, 16), 2, None, "not those of --draws 2"),
    ],
)
def test_dimensions_that_tell_no_shape(dimensions, draws, given, told):
    with pytest.raises(UserError, match=told):
        shape_of(dimensions, draws, given)


def test_the_usual_dimensions_are_those_of_most_rows():
    rows = [RowCodes(np.zeros(n, int), (n,)) for n in (3, 4, 4)] + [RowCodes(np.zeros(0, int), (), "no codes")] * 5
    assert usual_dimensions(rows) == (4,) and usual_dimensions([]) == ()
