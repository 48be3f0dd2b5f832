"""Parquet files whose names, rows and bytes follow from the rows alone, however Beam spread them."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.coders import RowCoder, registry

from models import files as models_files
from models.errors import UserError
from pipeline.output import files as output_files
from pipeline.output import schemas
from pipeline.output.files import WrittenFile, write_file
from pipeline.output.grouping import SORT_COLUMNS, row_hash
from pipeline.output.spill import HashRange, HashRanges, Spill, SpillFile, read_spilled

ROWS_PER_FILE = 500_000  # about 50 MB of pairs; a group of a shuffle must fit into a worker's memory
GROUP_ROWS = 1 << 16  # of a row group: what a writer holds in memory


registry.register_coder(WrittenFile, RowCoder)


class FileWriter:
    """Writes a Parquet file table by table; the same bytes as `file_bytes` of all of them, however they are cut."""

    def __init__(self, file: BinaryIO, schema: pa.Schema):
        self._sink = _HashingFile(file)
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
        self._waiting, self._groups = schema.empty_table(), 0

    def write(self, table: pa.Table) -> None:
        self._waiting = pa.concat_tables([self._waiting, table])
        while len(self._waiting) >= GROUP_ROWS:
            self._write_group(self._waiting.slice(0, GROUP_ROWS))
            self._waiting = self._waiting.slice(GROUP_ROWS)

    def close(self, name: str) -> WrittenFile:
        """Ends the file; `name` is its path relative to the output."""
        if len(self._waiting) or not self._groups:
            self._write_group(self._waiting)
        self._writer.close()
        return WrittenFile(name, self._sink.bytes, self._sink.sha256.hexdigest())

    def _write_group(self, table: pa.Table) -> None:
        self._writer.write_table(table.combine_chunks())  # pages end where chunks end
        self._groups += 1


class _HashingFile(io.RawIOBase):
    """Forwards what is written, and counts and hashes its bytes."""

    def __init__(self, file: BinaryIO):
        self._file, self.bytes, self.sha256 = file, 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.bytes

    def write(self, data: Any) -> int:
        self._file.write(data)
        self.sha256.update(data)
        self.bytes += len(data)
        return len(data)


def table_bytes(rows: Iterable[NamedTuple | dict], schema: pa.Schema) -> bytes:
    """A Parquet file of rows whose fields are the schema's columns."""
    dictionaries = [row if isinstance(row, dict) else row._asdict() for row in rows]
    return file_bytes(pa.Table.from_pylist(dictionaries, schema=schema))


def file_bytes(table: pa.Table) -> bytes:
    """A Parquet file of a table; the same bytes however the table came together."""
    buffer = io.BytesIO()
    pq.write_table(table.combine_chunks(), buffer, compression="zstd", row_group_size=GROUP_ROWS)
    return buffer.getvalue()


class Malformed(ValueError):
    """A Parquet file that pairmill has not written, or that was damaged since."""


@contextlib.contextmanager
def _total() -> Iterator[None]:
    """Turns whatever pyarrow raises for a file into Malformed."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        raise Malformed(" ".join(f"{error}".split())) from error


def _checked(table: pa.Table) -> pa.Table:
    """A table whose columns have the types, and the text the encoding, that pairmill writes. Raises Malformed."""
    for field in table.schema:
        if field.type != schemas.TYPES.get(field.name, field.type):
            raise Malformed(f"column {field.name} is of type {field.type}, not {schemas.TYPES[field.name]}")
        if field.name not in schemas.MAY_BE_NULL and table[field.name].null_count:
            raise Malformed(f"column {field.name} lacks values")
    table.validate(full=True)
    return table


def read_columns(path: str, columns: list[str]) -> pa.Table:
    """Columns of a Parquet file, local or behind a URL. Raises FileNotFoundError, or Malformed for another file."""
    with _total(), models_files.open_read(path) as file:
        return _checked(_read_selected(file, columns))


def table_of(data: bytes, columns: list[str]) -> pa.Table:
    """Columns of a Parquet file's bytes. Raises Malformed."""
    with _total():
        return _checked(_read_selected(io.BytesIO(data), columns))


def _read_selected(file: BinaryIO, columns: list[str]) -> pa.Table:
    table = pq.ParquetFile(file).read(columns)  # passes over those that it lacks
    for name in sorted(schemas.MAY_BE_MISSING.intersection(columns).difference(table.column_names)):
        table = table.append_column(name, pa.array([[]] * len(table), schemas.TYPES[name]))
    return table.select(columns)


def read_schema(path: str) -> pa.Schema:
    """The columns that a Parquet file has. Raises as `read_columns`."""
    with _total(), models_files.open_read(path) as file:
        return pq.read_schema(file)


def read_rows(path: str, row_type: type[Any]) -> Iterator[Any]:
    """The rows of a Parquet file as NamedTuples of `row_type`, in order. A column that the file lacks takes the field's
    default, if it has one."""
    yield from rows_of(output_files.read(path), path, row_type)


def rows_of(data: bytes, path: str, row_type: type[Any]) -> Iterator[Any]:
    """The rows of a file's bytes, as `read_rows`. Raises UserError if they are not such a file."""
    try:
        with _total():
            file = pq.ParquetFile(io.BytesIO(data))
            optional = row_type._field_defaults.keys() - set(file.schema_arrow.names)
            names = [name for name in row_type._fields if name not in optional]
            table = _checked(file.read(names).select(names))
    except Malformed as error:
        raise UserError(f"{path} is not as pairmill writes it: {error}") from None
    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            yield row_type(**row)


def files_in(base: str, folder: str) -> list[str]:
    """The Parquet files that a stage left in one of its folders."""
    path = output_files.join(base, folder)
    return [output_files.join(path, name) for name in output_files.list_files(path) if name.endswith(".parquet")]


class ReadParquet(beam.PTransform):
    """The rows of Parquet files as NamedTuples of one type."""

    def __init__(self, paths: list[str], row_type: type[Any]):
        self._paths, self._row_type = paths, row_type

    def expand(self, begin):
        return (
            begin
            | "Paths" >> beam.Create(self._paths).with_output_types(str)
            | "Spread" >> beam.Reshuffle()
            | "Rows" >> beam.FlatMap(read_rows, self._row_type).with_output_types(self._row_type)
        )


class WriteParquet(beam.PTransform):
    """Rows (NamedTuples, one PCollection or a tuple of them) -> FOLDER/NNNNN-of-MMMMM.parquet; a WrittenFile for each.

    The number of files follows from the number of rows, a row's file from its hash, and rows are sorted within a file:
    the same rows give the same bytes. No rows give one empty file, so that readers always find the schema.
    """

    def __init__(self, output: str, folder: str, schema: pa.Schema, rows_per_file: int = ROWS_PER_FILE):
        self._output, self._folder, self._schema, self._rows_per_file = output, folder, schema, rows_per_file

    def expand(self, rows):
        spills = rows | "Spill" >> Spill(self._output, self._schema, row_hash)
        return (
            spills
            | "Files" >> HashRanges(self._rows_per_file)
            | "Write"
            >> beam.Map(
                write_group, beam.pvalue.AsList(spills), self._output, self._folder, self._schema
            ).with_output_types(WrittenFile)
        )


def write_group(group: HashRange, spills: list[SpillFile], output: str, folder: str, schema: pa.Schema) -> WrittenFile:
    """Writes the rows of one group, sorted by `sort_key`, then by their other texts: attempts may read the spill files
    in another order."""
    table = read_spilled(output, spills, schema, *group.bounds).select(schema.names)
    texts = [field.name for field in schema if field.type == pa.string() and field.name not in SORT_COLUMNS]
    table = table.sort_by([(name, "ascending") for name in (*SORT_COLUMNS, *texts)])
    name = f"{folder}/{group.first:05d}-of-{group.total:05d}.parquet"
    return write_file(output, name, file_bytes(table))
