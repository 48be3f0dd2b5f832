"""Files of codes: Parquet with a column of them beside the captions, or `.npy` with a table of captions in the same
order. Found, cut into ranges of rows, and read row by row."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import UserError
from pipeline.codes.row_codes import RowCodes, codes_of_array, codes_of_column, list_depth
from pipeline.sources.paths import exists, expand, open_raw
from pipeline.sources.readers import LineStart, lines, open_seekable, open_source
from pipeline.sources.table_source import Columns
from pipeline.sources.tables import (
    CAPTION,
    CSV,
    HEAD_BYTES,
    JSON,
    JSON_LINES,
    TSV,
    Layout,
    Record,
    layout_of,
    table_records,
)
from pipeline.sources.unpack import head_of

ARRAY, TABLE, TEXT = ".npy", ".parquet", ".txt"
BESIDE = (TABLE, ".csv", ".tsv", ".jsonl", ".json", TEXT)
"""Endings of the table of captions beside an array, the first that is there."""
CODES = ("codes", "image_codes", "image_tokens", "indices")
KEY_COLUMNS = ("key", "__key__", "id")
SPLIT, SOURCE = "split", "source"
CAPTIONS = Columns(further=(*KEY_COLUMNS, SPLIT, SOURCE))
OTHER_CAPTIONS = "give the captions of these codes, a row for each"
ROWS_PER_RANGE = 8192
BATCH_ROWS = 512
READ_BYTES = 1 << 20  # of a column at once: a row group may be larger than the memory


class CodeFile(NamedTuple):
    """A file of codes, and the table that has their captions: itself, if it is one."""

    path: str
    table: str

    @property
    def is_array(self) -> bool:
        return self.path != self.table


class CodeRange(NamedTuple):
    """Rows of a file: of the row groups [first_group, stop_group) of its table; all, where that is no Parquet."""

    file: CodeFile
    first_group: int
    stop_group: int
    first_row: int
    rows: int


class CodeRow(NamedTuple):
    """A row: its place in its file, what its table says, its codes."""

    number: int
    record: Record
    codes: RowCodes


# --- which files -----------------------------------------------------------------------------------------------------


def find_code_files(pattern: str, captions: str | None) -> list[CodeFile]:
    """The files of codes of a folder, a path or a glob, sorted, each with its table; `captions` names the tables of
    arrays that have none beside them. Raises UserError if there are none, or one is of another kind."""
    found = _paths(pattern)
    arrays = [path for path in found if path.endswith(ARRAY)]
    if captions is not None:
        tables = expand(captions)
        if len(arrays) < len(found) or len(tables) != len(arrays):
            raise UserError(
                f"--captions {captions}: {len(tables)} files for {len(arrays)} of {len(found)} files of codes that are "
                "arrays (.npy); give one for each, in the same order; Parquet has captions in a column of its own"
            )
        return list(map(CodeFile, arrays, tables))
    beside = {path: _table_beside(path) for path in arrays}
    others = sorted({*found} - {*arrays} - {*beside.values()})
    for path in others:
        if not path.endswith(TABLE):
            raise UserError(f"--codes {path}: is neither .npy nor .parquet; narrow the pattern")
    return sorted(
        [*(CodeFile(path, table) for path, table in beside.items()), *(CodeFile(path, path) for path in others)]
    )


def _paths(pattern: str) -> list[str]:
    if not os.path.isdir(pattern):
        return expand(pattern)
    paths = [os.path.join(pattern, name) for name in sorted(os.listdir(pattern)) if name.endswith((ARRAY, TABLE))]
    if not paths:
        raise UserError(f"--codes {pattern}: the folder holds no .npy and no .parquet file")
    return paths


def _table_beside(array: str) -> str:
    stem = array.removesuffix(ARRAY)
    for ending in BESIDE:
        if exists(f"{stem}{ending}"):
            return f"{stem}{ending}"
    raise UserError(
        f"--codes {array}: no captions beside it ({os.path.basename(stem)}{{{','.join(BESIDE)}}}); name their table by "
        "--captions, with a row for each row of the array"
    )


# --- arrays ----------------------------------------------------------------------------------------------------------


class ArrayHeader(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int  # of the first row in the file, bytes


def read_array_header(path: str) -> ArrayHeader:
    """Raises UserError for a file that is not a complete array of integers, a row for each image."""
    with open_raw(path) as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, is_fortran, dtype = read_header[version](file)
        except (ValueError, KeyError, EOFError) as error:
            raise UserError(f"--codes {path}: is not readable as .npy: {' '.join(str(error).split())}") from None
        offset, end = file.tell(), file.seek(0, os.SEEK_END)
    found = f"--codes {path}: is an array {list(shape)} of {dtype}"
    if dtype.kind not in "iu" or len(shape) < 2 or 0 in shape[1:] or is_fortran:
        order = " in Fortran order" if is_fortran else ""
        raise UserError(f"{found}{order}; save integers, with a row for each image: [images, codes] or more dimensions")
    if end - offset != (expected := int(np.prod(shape, dtype=object)) * dtype.itemsize):
        raise UserError(f"{found} with {end - offset:,} bytes, expected {expected:,}; copy it again")
    return ArrayHeader(shape, dtype, offset)


def array_rows(path: str, first: int, stop: int) -> Iterator[np.ndarray]:
    """The rows [first, stop) of an array, BATCH_ROWS at once: [n, ...]."""
    header = read_array_header(path)
    row_bytes = int(np.prod(header.shape[1:])) * header.dtype.itemsize
    with open_raw(path) as file:
        file.seek(header.offset + first * row_bytes)
        for start in range(first, stop, BATCH_ROWS):
            rows = min(BATCH_ROWS, stop - start)
            yield np.frombuffer(file.read(rows * row_bytes), header.dtype).reshape(rows, *header.shape[1:])


# --- tables ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file whose columns are read piece by piece. Raises UserError where its content is damaged."""
    with open_seekable(path) as stream:
        try:
            yield pq.ParquetFile(stream, buffer_size=READ_BYTES)
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise UserError(
                f"{path} is not readable as Parquet: {' '.join(str(error).split())}; write it again"
            ) from None


def codes_column(file: pq.ParquetFile, path: str) -> str:
    """The name of the column of codes. Raises UserError if there is none, or if it has no lists of integers."""
    names = file.schema_arrow.names
    column = next((name for known in CODES for name in names if name.lower() == known), None)
    if column is None:
        raise UserError(f"--codes {path}: no column {' or '.join(CODES)} among {', '.join(names)}")
    try:
        list_depth(file.schema_arrow.field(column).type)
    except UserError as error:
        raise UserError(f"--codes {path}: column {column} {error}") from None
    return column


def check_table(file: CodeFile) -> None:
    """Raises UserError for a table that has no captions, and for one of Parquet that has no codes, or another number of
    rows than its array."""
    if not file.table.endswith(TABLE):
        _text_layout(file.table)
        return
    with open_parquet(file.table) as table:
        _require_captions(file.table, table.schema_arrow.names)
        if not file.is_array:
            codes_column(table, file.path)
        elif (rows := table.metadata.num_rows) != (expected := read_array_header(file.path).shape[0]):
            raise UserError(f"{file.table} has {rows:,} rows, {file.path} {expected:,}; {OTHER_CAPTIONS}")


def _require_captions(path: str, names: Iterable[str]) -> None:
    if {name.lower() for name in names}.isdisjoint(CAPTIONS.captions):
        raise UserError(f"{path}: no column {' or '.join(CAPTIONS.captions)} among {', '.join(names)}; rename one")


def _text_layout(path: str) -> Layout:
    """The form of a table of captions that is text."""
    if path.endswith(TEXT):
        return Layout(TEXT)
    with open_source(path) as stream:
        head = head_of(stream, HEAD_BYTES)
    layout = layout_of(head, lambda names: not {*CAPTIONS.captions}.isdisjoint(names))
    if layout.kind not in (JSON, JSON_LINES):
        if not layout.columns:  # of one column, it has no delimiter
            first_line = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").partition("\n")[0]
            columns = (first_line.strip().strip('"').lower(),)
            layout = Layout(CSV, ",", columns) if path.endswith(".csv") else Layout(TSV, "\t", columns)
        _require_captions(path, layout.columns)
    return layout


def ranges_of(file: CodeFile) -> list[CodeRange]:
    """Ranges of a file's rows, to be read side by side: whole row groups of about ROWS_PER_RANGE rows. A table of text
    is one range."""
    if not file.table.endswith(TABLE):
        rows = read_array_header(file.path).shape[0]
        return [CodeRange(file=file, first_group=0, stop_group=0, first_row=0, rows=rows)]
    with open_parquet(file.table) as table:
        sizes = [table.metadata.row_group(group).num_rows for group in range(table.metadata.num_row_groups)]
    ranges, first, first_row, rows = list[CodeRange](), 0, 0, 0
    for group, size in enumerate(sizes, 1):
        rows += size
        if rows >= ROWS_PER_RANGE or group == len(sizes):
            ranges.append(CodeRange(file=file, first_group=first, stop_group=group, first_row=first_row, rows=rows))
            first, first_row, rows = group, first_row + rows, 0
    return ranges


# --- rows ------------------------------------------------------------------------------------------------------------


def read_rows(code_range: CodeRange) -> Iterator[CodeRow]:
    """The rows of a range. Raises UserError if its table and its array end at different rows, or a file is damaged."""
    file, first, rows = code_range.file, code_range.first_row, code_range.rows
    if not file.is_array:
        pairs = _parquet_rows(code_range)
    else:
        pairs = _joined(file, rows, _records(code_range), array_codes(file.path, first, first + rows))
    for number, (record, codes) in enumerate(pairs, first):
        yield CodeRow(number, record, codes)


def array_codes(path: str, first: int, stop: int) -> Iterator[RowCodes]:
    """The codes of the rows [first, stop) of an array."""
    for rows in array_rows(path, first, stop):
        yield from codes_of_array(rows)


def column_codes(path: str) -> Iterator[RowCodes]:
    """The codes of the rows of a Parquet file."""
    with open_parquet(path) as file:
        column = codes_column(file, path)
        for batch in file.iter_batches(BATCH_ROWS, columns=[column]):
            yield from codes_of_column(batch.column(0))


def _joined(
    file: CodeFile, rows: int, records: Iterator[Record], codes: Iterator[RowCodes]
) -> Iterator[tuple[Record, RowCodes]]:
    joined = 0
    for row_codes, record in zip(codes, records, strict=False):  # ends with the codes without taking a record more
        yield record, row_codes
        joined += 1
    if joined < rows or next(records, None) is not None:
        more = "fewer" if joined < rows else "more"
        raise UserError(f"{file.table} has {more} rows than {file.path}, {rows:,}; {OTHER_CAPTIONS}")


def _parquet_rows(code_range: CodeRange) -> Iterator[tuple[Record, RowCodes]]:
    path, groups = code_range.file.path, range(code_range.first_group, code_range.stop_group)
    with open_parquet(path) as file:
        codes, names = codes_column(file, path), _table_columns(file)
        for batch in file.iter_batches(BATCH_ROWS, groups, [*names.values(), codes]):
            yield from zip(_batch_records(batch, names), codes_of_column(batch.column(codes)), strict=True)


def _records(code_range: CodeRange) -> Iterator[Record]:
    """The rows of the table of a range of an array."""
    path, groups = code_range.file.table, range(code_range.first_group, code_range.stop_group)
    if path.endswith(TABLE):
        with open_parquet(path) as file:
            names = _table_columns(file)
            for batch in file.iter_batches(BATCH_ROWS, groups, [*names.values()]):
                yield from _batch_records(batch, names)
        return
    layout = _text_layout(path)
    with open_source(path) as stream:
        yield from _lines(stream) if layout.kind == TEXT else table_records(stream, layout, LineStart())


def _lines(stream: BinaryIO) -> Iterator[Record]:
    for line in lines(stream):
        yield Record({CAPTION: line.text}, line.fault, line.text)


def _table_columns(file: pq.ParquetFile) -> dict[str, str]:
    """The columns to read but that of the codes: in lower case, and as the file has them."""
    names = {name.lower(): name for name in file.schema_arrow.names}
    return {name: names[name] for name in CAPTIONS.all if name in names}


def _batch_records(batch: pa.RecordBatch, names: dict[str, str]) -> Iterator[Record]:
    values: list[list[Any]] = [batch.column(name).to_pylist() for name in names.values()]
    for row in zip(*values, strict=True):
        yield Record(dict(zip(names, row, strict=True)))
