"""Files of codes: which there are, their tables, and their rows in any ranges."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import UserError
from pipeline.codes import code_files
from pipeline.codes.code_files import CodeFile, check_table, find_code_files, ranges_of, read_array_header, read_rows
from pipeline.codes.form import content_name, first_codes, form_of, largest_code

CODES = np.arange(20, dtype=np.uint16).reshape(5, 4)
CAPTIONS = ["one", 'two, or "2"', "three", "four", "five"]


def write_parquet(path, codes=CODES, group=2, **columns):
    table = {"codes": pa.array(list(codes), pa.list_(pa.uint16())), "Caption": CAPTIONS[: len(codes)], **columns}
    pq.write_table(pa.table(table), path, row_group_size=group)
    return str(path)


def test_a_folder_has_arrays_with_their_tables_and_parquet(tmp_path):
    write_parquet(tmp_path / "a.parquet")
    np.save(tmp_path / "b.npy", CODES)
    pq.write_table(pa.table({"text": CAPTIONS}), tmp_path / "b.parquet")
    (tmp_path / "notes.md").write_text("")
    a, b = (str(tmp_path / name) for name in ("a.parquet", "b.npy"))
    expected = [CodeFile(a, a), CodeFile(b, str(tmp_path / "b.parquet"))]
    assert find_code_files(str(tmp_path), None) == expected == find_code_files(f"{tmp_path}/*.[np]*", None)
    assert find_code_files(b, a) == [CodeFile(b, a)]


@pytest.mark.parametrize(
    ("names", "captions", "told"),
    [
        (["a.npy"], None, r"no captions beside it \(a\{.parquet,.csv,.*\}\); name their table by --captions"),
        (["a.tar"], None, "is neither .npy nor .parquet"),
        (["a.npy", "b.npy"], "a.txt", "1 files for 2 of 2 files of codes that are arrays"),
        (["a.parquet"], "a.txt", "1 files for 0 of 1 files .*Parquet has captions in a column of its own"),
    ],
)
def test_files_that_do_not_go_together(tmp_path, names, captions, told):
    (tmp_path / "codes").mkdir()
    for name in names:
        (tmp_path / "codes" / name).touch()
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=told):
        find_code_files(f"{tmp_path}/codes/*", captions and str(tmp_path / captions))


TABLES = {
    ".txt": "\n".join(CAPTIONS),
    ".csv": 'caption\none\n"two, or ""2"""\nthree\nfour\nfive\n',
    ".tsv": "id\tcaption\n" + "".join(f"{number}\t{text}\n" for number, text in enumerate(CAPTIONS)),
    ".jsonl": "".join(json.dumps({"caption": text}) + "\n" for text in CAPTIONS),
    ".json": json.dumps([{"text": text} for text in CAPTIONS]),
}


@pytest.mark.parametrize("ending", TABLES)
def test_tables_of_captions_in_any_form(tmp_path, ending):
    np.save(tmp_path / "codes.npy", CODES)
    (tmp_path / f"codes{ending}").write_text(TABLES[ending])
    [file] = find_code_files(str(tmp_path / "codes.npy"), None)
    check_table(file)
    [only] = ranges_of(file)
    rows = list(read_rows(only))
    assert [row.number for row in rows] == [0, 1, 2, 3, 4]
    assert CAPTIONS[1] in rows[1].record.values.values() and rows[1].codes.values.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("is_array", [False, True])
def test_ranges_of_row_groups(tmp_path, monkeypatch, is_array):
    monkeypatch.setattr(code_files, "ROWS_PER_RANGE", 3)
    monkeypatch.setattr(code_files, "BATCH_ROWS", 2)
    path = write_parquet(tmp_path / "a.parquet", group=2, key=["k", "l", "m", "n", "o"])
    np.save(tmp_path / "a.npy", CODES)
    file = CodeFile(str(tmp_path / "a.npy"), path) if is_array else CodeFile(path, path)
    check_table(file)
    ranges = ranges_of(file)
    assert [(each.first_group, each.stop_group, each.first_row, each.rows) for each in ranges] == [
        (0, 2, 0, 4),
        (2, 3, 4, 1),
    ]
    rows = [row for each in ranges for row in read_rows(each)]
    assert [row.number for row in rows] == [0, 1, 2, 3, 4]
    assert [row.record.values["key"] for row in rows] == ["k", "l", "m", "n", "o"]
    assert np.array_equal([row.codes.values for row in rows], CODES)


@pytest.mark.parametrize(("captions", "more"), [(4, "fewer"), (6, "more")])
def test_tables_of_other_rows_than_the_array(tmp_path, captions, more):
    np.save(tmp_path / "a.npy", CODES)
    (tmp_path / "a.txt").write_text("text\n" * captions)
    [file] = find_code_files(str(tmp_path / "a.npy"), None)
    with pytest.raises(UserError, match=f"a.txt has {more} rows than .*a.npy, 5; give the captions"):
        list(read_rows(*ranges_of(file)))
    pq.write_table(pa.table({"caption": ["text"] * captions}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"a.parquet has {captions} rows, .*a.npy 5; give the captions"):
        check_table(*find_code_files(str(tmp_path / "a.npy"), None))


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"text": ["a"], "tokens": [[1]]}, "no column codes or .* among text, tokens"),
        ({"codes": [[1]], "label": ["a"]}, "no column caption or .* among codes, label; rename one"),
        ({"codes": [[0.5]], "text": ["a"]}, r"column codes is of type list<.*double>; give lists of integers"),
    ],
)
def test_tables_without_codes_or_captions(tmp_path, columns, told):
    pq.write_table(pa.table(columns), path := str(tmp_path / "a.parquet"))
    with pytest.raises(UserError, match=told):
        check_table(CodeFile(path, path))


def test_tables_that_are_damaged_or_have_no_header(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"a.parquet is not readable as Parquet: .*; write it again"):
        check_table(CodeFile(str(tmp_path / "a.parquet"), str(tmp_path / "a.parquet")))
    (tmp_path / "a.csv").write_text("a boat\na house\n")
    with pytest.raises(UserError, match=r"no column caption or .* among a boat"):
        check_table(CodeFile("a.npy", str(tmp_path / "a.csv")))


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((2, 3)), "array .2, 3. of float64; save integers"),
        (np.zeros(3, int), "with a row for each image"),
        (np.zeros((3, 0), int), "with a row for each image"),
        (np.asfortranarray(np.arange(6).reshape(2, 3)), "in Fortran order"),
        (np.array([["a"]], object), "of object; save integers"),
    ],
)
def test_arrays_that_are_no_codes(tmp_path, array, told):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=told):
        read_array_header(str(tmp_path / "a.npy"))


def test_arrays_that_are_cut(tmp_path):
    np.save(path := tmp_path / "a.npy", CODES)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match="with 38 bytes, expected 40; copy it again"):
        read_array_header(str(path))
    path.write_bytes(b"no array")
    with pytest.raises(UserError, match=r"is not readable as \.npy"):
        read_array_header(str(path))


def test_what_the_files_tell(tmp_path):
    path = write_parquet(tmp_path / "a.parquet")
    plain = str(tmp_path / "plain.parquet")
    pq.write_table(pq.read_table(path), plain, write_statistics=False)
    np.save(tmp_path / "a.npy", CODES)
    files = [CodeFile(path, path), CodeFile(plain, plain), CodeFile(str(tmp_path / "a.npy"), path)]
    assert [largest_code(file) for file in files] == [19, 19, 19]
    first = [first_codes([file]) for file in files]
    assert len({content_name(rows) for rows in first}) == 1
    form = form_of(files, first[0], 1, None, None)
    assert (form.dimensions, form.shape.sequence, form.vocabulary) == ((4,), 4, 20)
    assert form_of(files, first[0], 2, None, 64)[1:] == (2, form_of(files, first[0], 2, None, 64).shape, 64)
    write_parquet(tmp_path / "b.parquet", CODES[:, ::-1])
    other = CodeFile(str(tmp_path / "b.parquet"), str(tmp_path / "b.parquet"))
    assert content_name(first_codes([other])) != content_name(first[0])


def test_files_without_a_code(tmp_path):
    pq.write_table(
        pa.table({"codes": pa.array([None, []], pa.list_(pa.int32())), "text": ["a", "b"]}),
        path := f"{tmp_path}/a.parquet",
    )
    with pytest.raises(UserError, match="none of the first 1,000 rows has codes"):
        first_codes([CodeFile(path, path)])
