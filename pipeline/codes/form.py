"""What all codes of a job have in common: the dimensions of a row, the shape, the vocabulary, and a name."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence

from models.errors import UserError
from models.tokenizers.info import MAX_VOCABULARY, CodeShape
from pipeline.codes.code_files import (
    CodeFile,
    array_codes,
    codes_column,
    column_codes,
    open_parquet,
    read_array_header,
)
from pipeline.codes.row_codes import ROWS_TO_JUDGE, CodeForm, RowCodes, shape_of, usual_dimensions
from pipeline.sources.paths import map_files


def first_codes(files: Sequence[CodeFile]) -> list[RowCodes]:
    """The codes of the first rows. Raises UserError if there are none."""
    codes = itertools.islice(itertools.chain.from_iterable(map(_codes_of, files)), ROWS_TO_JUDGE)
    if not (found := [row for row in codes if not row.fault]):
        raise UserError(f"--codes {files[0].path}: none of the first {ROWS_TO_JUDGE:,} rows has codes")
    return found


def form_of(
    files: Sequence[CodeFile], first: Iterable[RowCodes], draws: int, shape: CodeShape | None, vocabulary: int | None
) -> CodeForm:
    """The form of the codes, whose `first` rows tell the dimensions; what is not given is taken from the files. Raises
    UserError if they do not fit what is given."""
    dimensions = usual_dimensions(first)
    try:
        shape = shape_of(dimensions, draws, shape)
    except UserError as error:
        raise UserError(f"--codes {files[0].path}: {error}") from None
    vocabulary = vocabulary or 1 + max(map_files(largest_code, files))
    if not 1 <= vocabulary <= MAX_VOCABULARY:
        raise UserError(
            f"--codes: the largest code is {vocabulary - 1:,}; give --code-vocabulary up to {MAX_VOCABULARY:,}"
        )
    return CodeForm(dimensions, draws, shape, vocabulary)


def content_name(first: Iterable[RowCodes]) -> str:
    """A name for the tokenizer of codes, if none is given: 16 hex digits that follow from the first rows' codes. Other
    codes of the same images have another."""
    digest = hashlib.sha256()
    for row in first:
        digest.update(row.values.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def largest_code(file: CodeFile) -> int:
    """The largest code of a file; -1 if it has none. Reads all of an array, of Parquet only the statistics if it has
    them."""
    if not file.is_array and (stated := _stated_maximum(file.path)) is not None:
        return stated
    return max((int(row.values.max()) for row in _codes_of(file) if len(row.values)), default=-1)


def _stated_maximum(path: str) -> int | None:
    """The largest code by the statistics of a Parquet file's row groups; None if one has none."""
    with open_parquet(path) as file:
        root, maxima = codes_column(file, path), []
        for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                if column.path_in_schema.split(".")[0] != root or not column.num_values:
                    continue
                if not column.statistics or not column.statistics.has_min_max:
                    return None
                maxima.append(int(column.statistics.max))
        return max(maxima, default=-1)


def _codes_of(file: CodeFile) -> Iterator[RowCodes]:
    if file.is_array:
        return array_codes(file.path, 0, read_array_header(file.path).shape[0])
    return column_codes(file.path)
